"""Pairs of nodes with our tunnel and with the module's used by hand, in turn; needs a kernel with the ipip module."""

import os
import sys
from collections.abc import Callable
from statistics import mean

from figures import RUNS, tell_ratio
from tunnel_pair import Pair, gigabits, packets, pair

SECONDS = float(os.environ.get("IPERF_SECONDS") or 1)
"""Many short looks instead of few long ones: an emulated processor's speed drifts."""

REACH = 0.95
TO_ONE, TO_ALL = "ip tunnel to one node, by hand", "tunl0 to every node, by hand"


def to_one(two: Pair) -> None:
    """Have the pods' packets take a tunnel from node to node, as `ip tunnel` makes it, and no rule of ours."""
    for number, node in enumerate(two.nodes, start=1):
        far = 3 - number
        node.run("nft", "delete", "table", "ip", "felix-ipip")
        ends = ("local", f"172.31.0.{number}", "remote", f"172.31.0.{far}")
        node.run("ip", "tunnel", "add", "hand0", "mode", "ipip", *ends)
        node.ip(f"link set hand0 up\nroute replace 10.65.{far}.0/24 dev hand0\n")


def to_all(two: Pair) -> None:
    """Have them take the module's own device, which finds each node by its route, and no rule of ours."""
    for node in two.nodes:
        node.run("nft", "delete", "table", "ip", "felix-ipip")


def looks(measure: Callable[[Pair, str, float], float], pairs: tuple[Pair, ...]) -> list[float]:
    """Measure each twice, there and back, so that whatever drifts steadily meets all alike."""
    there = [measure(each, "ipip", SECONDS) for each in pairs]
    back = [measure(each, "ipip", SECONDS) for each in reversed(pairs)]
    return [mean(both) for both in zip(there, reversed(back), strict=True)]


def measure() -> int:
    with pair("kernel") as ours, pair("kernel") as one, pair("kernel") as all_nodes:
        to_one(one)
        to_all(all_nodes)
        kept = []
        for name, unit, what in (
            ("one TCP stream", "Gbit/s", gigabits),
            ("64 byte packets", "packets/s", packets),
        ):
            looks(what, (ours, one, all_nodes))  # the emulator translates what it meets for the first time
            rounds = [looks(what, (ours, one, all_nodes)) for _ in range(RUNS)]
            mine, *theirs = zip(*rounds, strict=True)
            kept += [
                tell_ratio(f"tunnels: {name}, kernel IPIP in a guest", mine, unit, peer, values, REACH)
                for peer, values in zip((TO_ONE, TO_ALL), theirs, strict=True)
            ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(measure())
