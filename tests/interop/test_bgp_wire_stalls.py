"""The child alone, when nobody reads what it tells."""

import asyncio
import os
from pathlib import Path

import pytest
from bgp_lab import until
from child_parties import FAR, talking
from far_end import blocks, plain, update
from loops import in_a_loop

from bgp.types import PeerDown, UpdateFaulty, UpdateReceived

pytestmark = pytest.mark.interop


def resident_kibibytes(process: int) -> int:
    return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0])


@in_a_loop
async def test_an_agent_that_stands_still_loses_no_update_and_no_session(namespace: str) -> None:
    seconds = float(os.environ.get("STALL_SECONDS") or 11)  # longer than the hold time of 9 s
    async with talking(namespace, count=3) as (hand, far):
        hand.reading.clear()
        for number, address in enumerate(FAR):
            count = 20_000 if number == 0 else 100
            some = blocks(count, f"10.{128 + 32 * number}.0.0")
            await far.say(address, *(update(plain(address, med=index), nlri) for index, nlri in enumerate(some)))
        await asyncio.sleep(seconds)  # the time itself is what is tested
        assert [(await far.ask(address))["up"] for address in FAR] == [True] * 3
        hand.reading.set()
        await until(lambda: len(hand.prefixes) == 20_200, "every update is there")
        assert [hand.of(kind) for kind in (PeerDown, UpdateFaulty)] == [[], []]
        assert [(await far.ask(address))["sessions"] for address in FAR] == [1] * 3


@in_a_loop
async def test_what_an_agent_does_not_read_waits_at_the_peers(namespace: str) -> None:
    """More than the child would keep: 400,000 UPDATEs are 27 MB, and it keeps 8."""
    async with talking(namespace, count=2) as (hand, far):
        hand.reading.clear()
        some = [update(plain(FAR[0], med=number % 7), nlri) for number, nlri in enumerate(blocks(100_000))]
        for _ in range(4):
            await far.say(FAR[0], *some)
        await asyncio.sleep(11)  # longer than the hold time
        assert resident_kibibytes(hand.child.pid) < 64 << 10
        hand.reading.set()
        await until(lambda: len(hand.of(UpdateReceived)) == 400_000, "every update is there", within=60)
        assert hand.of(PeerDown) == []
        assert len(hand.prefixes) == 100_000
