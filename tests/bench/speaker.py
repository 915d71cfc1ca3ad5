"""What the speaker itself costs for each prefix: policy, tables and selection, without a wire."""

import gc
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bgp_builders import HELPED, attributes, offered, peer, settings
from figures import RUNS, tell

from bgp.speaker import Speaker
from bgp.speaker_words import Configured, Event, WireStarted
from bgp.types import OpenReceived, PeerUp, UpdateReceived

SIZE = int(os.environ.get("SIZE") or 100_000)
"""Prefixes that share attributes; a fifth of it have attributes of their own."""

PACKED = 800
"""Prefixes in one UPDATE, about as many as fit."""

PEERS = [IPv4Address("172.31.2.1") + number for number in range(50)]
PREFIXES = [IPv4Network((0x0A420000 + number * 64, 26)) for number in range(SIZE)]


def started() -> Speaker:
    """Return a speaker with 50 sessions up."""
    wanted = settings(*map(peer, PEERS), accept_within=(IPv4Network("10.0.0.0/8"),))
    speaker = Speaker(wanted, now=0)
    speaker.on(WireStarted(), now=0)
    for address in PEERS:
        speaker.on(OpenReceived(address, offered(router_id=address, restart=HELPED)), now=1)
        speaker.on(PeerUp(address, 90), now=1)
    return speaker


def cost(speaker: Speaker, events: Sequence[Event], prefixes: int) -> float:
    """Return microseconds for each prefix."""
    gc.collect()
    begin = time.perf_counter()
    for event in events:
        speaker.on(event, now=2)
    return (time.perf_counter() - begin) / prefixes * 1e6


def main() -> int:
    """Print three figures."""
    teller, few = PEERS[0], SIZE // 5
    said = attributes(str(teller))
    packed = [UpdateReceived(teller, tuple(PREFIXES[at : at + PACKED]), (), said) for at in range(0, SIZE, PACKED)]
    shared, anew, own = [], [], []
    for _ in range(RUNS):
        speaker = started()
        shared.append(cost(speaker, packed, SIZE))
        narrower = replace(speaker.settings, accept_within=(IPv4Network("10.0.0.0/9"),))
        anew.append(cost(speaker, [Configured(narrower)], SIZE))
        single = [
            UpdateReceived(teller, (prefix,), (), attributes(str(teller), med=number))
            for number, prefix in enumerate(PREFIXES[:few])
        ]
        own.append(cost(started(), single, few))
    kept = (
        tell("speaker: a prefix that shares attributes", shared, "us", 4),
        tell("speaker: a prefix with attributes of its own", own, "us", 15),
        tell("speaker: a prefix judged anew after policy has changed", anew, "us", 4),
    )
    return int(not all(kept))


if __name__ == "__main__":
    raise SystemExit(main())
