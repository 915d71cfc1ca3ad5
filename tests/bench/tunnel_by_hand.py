"""One pair of nodes whose tunnel is ours and made with `ip tunnel`, in turn; needs a kernel with the ipip module."""

import os
import sys
import tempfile
from ipaddress import IPv4Address
from pathlib import Path

from figures import RUNS, tell_ratio
from tunnel_pair import Pair, gigabits, packets, pair

from ipip.device import Device
from ipip.tunnel import Tunnel

SECONDS = float(os.environ.get("IPERF_SECONDS") or 2)
REACH = 0.95
PEER = "ip tunnel, by hand"


def by_hand(two: Pair) -> None:
    """Have the pods' packets take a tunnel from node to node, as `ip tunnel` makes it, and no rule of ours."""
    for number, node in enumerate(two.nodes, start=1):
        far = 3 - number
        node.run("nft", "delete", "table", "ip", "felix-ipip")
        ends = ("local", f"172.31.0.{number}", "remote", f"172.31.0.{far}")
        node.run("ip", "tunnel", "add", "hand0", "mode", "ipip", *ends)
        node.ip(f"link set hand0 up\nroute replace 10.65.{far}.0/24 dev hand0\n")


def ours(two: Pair, directory: Path) -> None:
    """Have them take our driver's again."""
    for number, node in enumerate(two.nodes, start=1):
        far = 3 - number
        node.ip(f"route replace 10.65.{far}.0/24 via 172.31.0.{far} dev tunl0 onlink\nlink del hand0\n")
        remote, local = IPv4Address(f"172.31.0.{far}"), IPv4Address(f"172.31.0.{number}")
        node.do(node.do(Device, directory, "kernel").put, Tunnel(local, 1480, allowed=frozenset({remote})))


def measure() -> int:
    found: dict[str, list[float]] = {"ours": [], "theirs": [], "our packets": [], "their packets": []}
    with tempfile.TemporaryDirectory() as directory, pair("kernel") as two:
        for _ in range(RUNS):
            found["ours"].append(gigabits(two, "ipip", SECONDS))
            found["our packets"].append(packets(two, "ipip", SECONDS))
            by_hand(two)
            found["theirs"].append(gigabits(two, "ipip", SECONDS))
            found["their packets"].append(packets(two, "ipip", SECONDS))
            ours(two, Path(directory))
    name = "tunnels: one TCP stream, kernel IPIP in a guest"
    small = "tunnels: 64 byte packets, kernel IPIP in a guest"
    kept = [
        tell_ratio(name, found["ours"], "Gbit/s", PEER, found["theirs"], REACH),
        tell_ratio(small, found["our packets"], "packets/s", PEER, found["their packets"], REACH),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(measure())
