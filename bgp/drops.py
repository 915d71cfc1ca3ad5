"""What a kernel has dropped of BGP connections without an answer: the evidence where a peer seems to be silent."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Drop(StrEnum):
    """Why packets are dropped (RFC 2385 section 2.0, RFC 5082 section 3); the names are those of Linux's counters."""

    WRONG_SIGNATURE = "TCPMD5Failure"
    UNSIGNED = "TCPMD5NotFound"
    SIGNED = "TCPMD5Unexpected"
    LOW_TTL = "TCPMinTTLDrop"


@dataclass(frozen=True, slots=True)
class PacketsDropped:
    """The kernel of this host has dropped packets since it was asked last; nobody knows whose they were."""

    counts: Mapping[Drop, int]


def counted(netstat: str) -> dict[Drop, int]:
    """Return the counters from the text of /proc/net/netstat, where each line of names has a line of numbers after it.

    A kernel that does not know one of them counts 0.
    """
    lines = netstat.splitlines()
    found: dict[str, str] = {}
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        found |= dict(zip(names.split()[1:], numbers.split()[1:], strict=False))
    return {drop: int(found.get(drop, 0)) for drop in Drop}


def since(before: Mapping[Drop, int], now: Mapping[Drop, int]) -> dict[Drop, int]:
    """Return what was counted between two looks, without what was not."""
    return {drop: count - before.get(drop, 0) for drop, count in now.items() if count > before.get(drop, 0)}
