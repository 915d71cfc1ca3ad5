"""How long it takes to move many routes to another next hop: by one next-hop object, and by rewriting each."""

import socket
import statistics
import subprocess
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from figures import RUNS, tell, tell_ratio
from route_packets import EACH_SECOND, Travelled, traffic
from route_space import POOL, Space, await_all, engine, inside, ip_batch, make, prefixes, require, scaled, timed, wish

from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelState, NextHop, NextHopObject, Route, RouteKey

COUNT = scaled(10_000, 100)
SAMPLED = 100
"""Routes that packets travel by."""

HOPS = (("eth0", IPv4Address("172.31.1.12")), ("eth1", IPv4Address("172.31.2.12")))
MOVES, PAUSE = 20, 0.01
"""Moves to and fro in each run while packets travel, and the seconds between them: few packets meet any one of them."""

NUMBER = int(HOPS[0][1])
COMPATIBLE = Path("/proc/sys/net/ipv4/nexthop_compat_mode")
"""While it is set, the kernel tells of every route that moves with its object: 10,000 events for one change."""

FAR_END = f"""
link set lo up
link add far0 type veth peer name eth0
link add far1 type veth peer name eth1
link set far0 up
link set far1 up
addr add 172.31.1.12/24 dev far0
addr add 172.31.2.12/24 dev far1
route add local {POOL} dev lo
"""
NEAR_END = """
link set lo up
link set eth0 up
link set eth1 up
addr add 172.31.1.11/24 dev eth0
addr add 172.31.2.11/24 dev eth1
"""


def to_another_next_hop() -> bool:
    """Move COUNT routes to and fro while packets travel by some of them; both ways lead to who counts them."""
    moved: list[float] = []
    rewritten: list[float] = []
    lost: list[int] = []
    far = Space(FAR_END)
    try:
        with inside() as near:
            with far.entered():
                ip_batch(f"link set eth0 netns {near.path}\nlink set eth1 netns {near.path}\n")
            ip_batch(NEAR_END)
            COMPATIBLE.write_text("0")
            _reach_both()
            with engine() as kernel:
                for _ in range(RUNS):
                    rewritten.append(_rewritten(kernel))
                    milliseconds, travelled = _moved(kernel, far)
                    moved.append(milliseconds)
                    lost.append(travelled.lost)
    finally:
        far.close()
    name = f"routes: {COUNT} moved to another next hop"
    kept = [
        tell(f"{name}, by its object", moved, "ms", 2.0),
        tell_ratio(f"{name}, both ways", moved, "ms", "each rewritten", rewritten, 0.1, better="lower"),
        tell(f"{name}, packets lost of {EACH_SECOND}/s", [sum(lost)], "packets", 0.0),
    ]
    return all(kept)


def _reach_both() -> None:
    """Let the neighbours be known, as they are where BGP runs; who meets a stranger waits, and that is not measured."""
    for _, address in HOPS:
        subprocess.run(["ping", "-c1", "-W5", "-q", str(address)], check=True, capture_output=True)


def _by_object(which: int, routes: Mapping[RouteKey, Route]) -> KernelState:
    device, via = HOPS[which]
    return KernelState(routes=routes, next_hops={NUMBER: NextHopObject(NextHop(via, device))})


def _moved(kernel: Kernel, far: Space) -> tuple[float, Travelled]:
    """Return the milliseconds of one move, the median of several, and what became of the packets."""
    networks = prefixes(COUNT)
    routes = wish(networks, Route(through=NUMBER))
    states = [_by_object(which, routes) for which in (0, 1)]
    make(kernel, states[0])
    await_all("engine", COUNT)
    chosen = [networks[number * COUNT // SAMPLED][1] for number in range(SAMPLED)]
    with traffic() as packets:
        with far.entered():
            packets.receive()
            names = dict(socket.if_nameindex())
        packets.send(chosen)
        moved = [_move(kernel, states[move % 2], HOPS[move % 2][0], chosen[0]) for move in range(1, MOVES + 1)]
        travelled = packets.end()
    arrived = {names[index]: count for index, count in travelled.arrived.items()}
    if set(arrived) != {"far0", "far1"}:
        raise AssertionError(f"packets arrived by {arrived}")
    await_all("engine", COUNT)
    make(kernel, KernelState())
    return statistics.median(moved), travelled


def _move(kernel: Kernel, state: KernelState, device: str, target: IPv4Address) -> float:
    time.sleep(PAUSE)
    seconds, report = timed(lambda: make(kernel, state))
    require(1, len(report.routes.next_hops), "objects written")
    require(0, len(report.routes), "routes written")
    _leaves_by(device, target)
    return seconds * 1000


def _leaves_by(device: str, target: IPv4Address) -> None:
    shown = subprocess.run(["ip", "route", "get", str(target)], check=True, capture_output=True, text=True).stdout
    if f" dev {device} " not in shown:
        raise AssertionError(f"not by {device}: {shown}")


def _rewritten(kernel: Kernel) -> float:
    """Return the milliseconds that it takes to write as many plain routes anew, by the other way."""
    networks = prefixes(COUNT)
    before, after = (KernelState(routes=wish(networks, Route(via=via, device=device))) for device, via in HOPS)
    make(kernel, before)
    seconds, report = timed(lambda: make(kernel, after))
    require(COUNT, len(report.routes), "rewritten")
    _leaves_by(HOPS[1][0], networks[-1][1])
    make(kernel, KernelState())
    return seconds * 1000
