"""A peer that comes and goes a hundred times leaves nothing behind, neither in our process nor in ExaBGP."""

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bgp_lab import TOR, TOR_AS, Lab, Node, running, settings, tor, until
from far_end import UPDATE, attribute, blocks, message, plain, update
from loops import in_a_loop

from bgp.exabgp_process import BgpService

pytestmark = pytest.mark.interop

FLAPS = 100
PREFIXES = 50


@dataclass(frozen=True, slots=True)
class Held:
    """What this process and its child hold; memory in KiB."""

    descriptors: int
    childs_descriptors: int
    tasks: int
    threads: int
    memory: int
    childs_memory: int


def held(service: BgpService) -> Held:
    def resident(process: str) -> int:
        return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0])

    def opened(process: str) -> int:
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())

    child = str(service.child_pid)
    return Held(
        opened("self"),
        opened(child),
        len(asyncio.all_tasks()),
        threading.active_count(),
        resident("self"),
        resident(child),
    )


@contextlib.asynccontextmanager
async def far_end(lab: Lab) -> AsyncIterator[asyncio.subprocess.Process]:
    """Have a speaker at the router's place that does what it is told to."""
    command = (*lab.inside("tor"), sys.executable, str(Path(__file__).parent / "far_end.py"), str(TOR_AS), str(TOR))
    pipe = asyncio.subprocess.PIPE
    far = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert far.stdout is not None
    await far.stdout.readline()
    try:
        yield far
    finally:
        far.kill()
        await far.wait()


async def order(far: asyncio.subprocess.Process, **what: object) -> None:
    assert far.stdin is not None
    assert far.stdout is not None
    far.stdin.write(json.dumps({"address": str(TOR), **what}).encode() + b"\n")
    await far.stdout.readline()


AS_PATH = b"\x02\x01" + TOR_AS.to_bytes(4, "big")


def table(number: int) -> str:
    """Return what the peer says when it is there for the so-manieth time: each time with other attributes."""
    community = attribute(0xC0, 8, number.to_bytes(4, "big"))
    attributes = plain(str(TOR), as_path=AS_PATH, med=number) + community
    return b"".join(message(UPDATE, update(attributes, prefix)) for prefix in blocks(PREFIXES, "10.65.128.0")).hex()


@in_a_loop
async def test_a_peer_that_flaps_a_hundred_times_leaves_nothing_behind(lab: Lab) -> None:
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(), mesh=False))
    async with far_end(lab) as far, running(one):
        early = None
        for number in range(1, FLAPS + 1):
            await until(one.established, f"it is up for the {number}. time")
            await order(far, say=table(number))
            await until(lambda: len(one.service.best_paths()) == PREFIXES, "everything is heard")
            await order(far, leave=True)
            await until(lambda n=number: one.peer().flaps == n, f"loss {number} is noticed")
            if number == FLAPS // 10:
                await until(one.established, "it is up")
                early = held(one.service)
        await until(one.established, "it is up")
        late = held(one.service)
        assert early is not None
        counted = ("descriptors", "childs_descriptors", "tasks", "threads")
        assert [getattr(late, each) for each in counted] == [getattr(early, each) for each in counted]
        assert late.memory - early.memory < 2048
        assert late.childs_memory - early.childs_memory < 1024
        assert one.service.respawns == 0
