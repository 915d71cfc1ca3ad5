"""500 blocks of another node move into a tunnel and back under traffic: how long it takes, and what is lost."""

import sys
import time
from ipaddress import ip_network
from pathlib import Path

from figures import RUNS, tell

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "netns")]

from builders import block, node, pool, vxlan_pool  # noqa: E402 - found through the line above
from route_node import lab  # noqa: E402 - same
from spaces import SECONDS  # noqa: E402 - same
from vxlan_lab import Racks, streams  # noqa: E402 - same

from felix_py.model import TunnelMode  # noqa: E402 - same
from felix_py.state import Event  # noqa: E402 - same

MANY = tuple(str(each) for each in ip_network("10.65.128.0/17").subnets(new_prefix=26))[:500]

SIX = vxlan_pool("fd65::/48", TunnelMode.CROSS_SUBNET, name="default-ipv6")
WAYS: dict[str, tuple[str, tuple[Event, ...]]] = {
    "VXLAN": ("vxlan.calico", (vxlan_pool(mode=TunnelMode.CROSS_SUBNET), SIX)),
    "IPIP": ("tunl0", (pool(mode=TunnelMode.CROSS_SUBNET), SIX)),
}

MILLISECONDS = 500.0
"""What one move may take, the settling time of resources included."""


def measure() -> int:
    kept = []
    for name, (device, pools) in WAYS.items():
        took, lost = _moves(device, pools)
        what = f"moves: 500 blocks into {name} and back"
        kept += [
            tell(f"{what}, each way", [1000 * each for each in took], "ms", MILLISECONDS),
            tell(f"{what}, packets lost", [lost], "packets", 0),
        ]
    return 0 if all(kept) else 1


def _moves(device: str, pools: tuple[Event, ...]) -> tuple[list[float], int]:
    """Return the seconds of each move, and how many of some thousand packets each way were lost."""
    took: list[float] = []
    with lab() as made:
        racks = Racks(made, *pools, *(block("a2", cidr) for cidr in MANY), names=("a1", "a2"), bgp=False)
        assert racks.connected()
        with streams(racks, "a1", "a2") as sent:
            for _ in range(RUNS):
                for mask, to in ((32, device), (24, "eth0")):
                    began = time.monotonic()
                    racks.a1.tell(node("a1", f"172.31.1.11/{mask}", "fd31:1::11/64"))
                    assert racks.a1.until(lambda to=to: _there(racks, to) == len(MANY), SECONDS)
                    took.append(time.monotonic() - began)
            lost = sum(len(each.lost()) for each in sent)
    return took, lost


def _there(racks: Racks, device: str) -> int:
    shown = racks.a1.space.run("ip", "route", "show", "proto", "80", "dev", device)
    return sum(f"{cidr} " in shown for cidr in MANY)


if __name__ == "__main__":
    sys.exit(measure())
