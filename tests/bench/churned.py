"""Memory of a whole node while a peer changes everything that it has said, again and again."""

import sys
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import bgp_parties as parties
from bgp_parties import SOURCE, Felix, Wire, until
from churner import ASN, MARKS

CHURNER = Path(__file__).parent / "churner.py"


@dataclass(frozen=True, slots=True)
class Weight:
    """What agent and ExaBGP hold, after so many prefix updates.

    Attributes:
        agent, exabgp: resident memory, MiB.
        descriptors, threads: of both.
    """

    updates: int
    agent: float
    exabgp: float
    descriptors: int
    threads: int


def weigh(felix: Felix, updates: int) -> Weight:
    agent, exabgp = felix.processes()
    opened, threads = (
        sum(sum(1 for _ in Path(f"/proc/{process}/{what}").iterdir()) for process in (agent, exabgp))
        for what in ("fd", "task")
    )
    return Weight(updates, parties.status(agent, "VmRSS"), parties.status(exabgp, "VmRSS"), opened, threads)


def churn(wire: Wire, prefixes: int, *weighed_after: int) -> list[Weight]:
    """Have a peer say so many prefixes anew in each round.

    Args:
        wire: between us.
        prefixes: of a round; each has attributes of its own, which it never had before.
        weighed_after: rounds after which everything is weighed; the last one ends it.

    Returns:
        What was weighed.
    """
    parties.ip("-n", wire.source, "addr", "add", f"{IPv4Address(SOURCE) + 4}/12", "dev", "eth0")
    address = str(IPv4Address(SOURCE) + 4)
    felix = Felix(wire, [address])
    peer = wire.start(wire.source, sys.executable, CHURNER, address, str(prefixes))
    assert peer.stdin is not None
    assert peer.stdout is not None
    assert peer.stdout.readline() == "ready\n"
    weights = []
    try:
        until(felix.established, "the session is up", 0.05)
        for number in range(max(weighed_after)):
            peer.stdin.write("\n")
            peer.stdin.flush()
            mark = str(IPv4Address(MARKS + number))
            shown = ("-n", wire.target, "route", "show", mark)
            until(lambda shown=shown: parties.ip(*shown), f"round {number} is in the kernel", 0.02)
            if number + 1 in weighed_after:
                weights.append(weigh(felix, (number + 1) * (prefixes + 2)))
        return weights
    finally:
        felix.end()


__all__ = ["ASN", "Weight", "churn", "weigh"]
