"""How fast routes get into the kernel: the whole engine, the writer alone, and beside them whoever else does it."""

import gc
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import RUNS, tell_ratio
from route_peers import BirdPair, Compiled, IpBatch, Pyroute2
from route_space import (
    FAR,
    NODE,
    ONE_LINK,
    SIZE,
    Space,
    await_all,
    counted,
    empty,
    engine,
    inside,
    ip_batch,
    make,
    prefixes,
    require,
    scaled,
    timed,
    wish,
)
from route_watch import Watcher, watching

from felix_py.kernel.objects import KernelState
from felix_py.kernel.route_codec import Encoder
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Mode, Verb


def through_the_engine() -> bool:
    """Wish SIZE routes and have them in the kernel; beside `ip -batch` and pyroute2."""
    networks = prefixes(SIZE)
    few = networks[: scaled(2000, 100)]
    rates: dict[str, list[float]] = {"engine": [], "ip": [], "pyroute2": []}
    with inside(ONE_LINK), tempfile.TemporaryDirectory() as folder:
        by_ip = IpBatch(Path(folder), "add", networks)
        by_pyroute2 = Pyroute2(socket.if_nametoindex("eth0"), few)
        state = KernelState(routes=wish(networks))
        for _ in range(RUNS):
            with engine() as kernel:
                seconds, report = timed(lambda: make(kernel, state))
            require(SIZE, len(report.routes), "written by the engine")
            _finish("engine", SIZE, seconds, rates)
            _finish("ip", SIZE, timed(by_ip)[0], rates)
            _finish("pyroute2", len(few), timed(by_pyroute2)[0], rates)
    name = f"routes: {SIZE} wished, through the whole engine"
    peer = f"pyroute2 IPRoute.route, {len(few)}"
    kept = [
        tell_ratio(name, rates["engine"], "routes/s", "ip -batch", rates["ip"], 1.5),
        tell_ratio(f"{name}, beside Python", rates["engine"], "routes/s", peer, rates["pyroute2"], 20),
    ]
    return all(kept)


def _finish(who: str, count: int, seconds: float, rates: dict[str, list[float]]) -> None:
    """See that all routes are there, take them away again, and note how fast they came."""
    require(count, counted(), who)
    empty()
    rates[who].append(count / seconds)


def by_the_writer() -> bool:
    """Write SIZE routes that are bytes already, and know what became of each; beside C."""
    rates: dict[str, list[float]] = {"writer": [], "C": []}
    with inside(ONE_LINK), tempfile.TemporaryDirectory() as folder:
        encode = Encoder({"eth0": socket.if_nametoindex("eth0")})
        bodies = [encode(key, route) for key, route in wish(prefixes(SIZE)).items()]
        compiled = Compiled(Path(folder), bodies)
        wire = Rtnetlink()
        for _ in range(RUNS):
            seconds, refused = timed(lambda: wire.write(Verb.NEW_ROUTE, Mode.CREATE | Mode.EXCLUSIVE, bodies))
            require(0, len(refused), "refused")
            _finish("writer", SIZE, seconds, rates)
            _finish("C", SIZE, compiled(), rates)
        wire.close()
    name = f"routes: {SIZE} encoded, by the writer alone"
    return tell_ratio(name, rates["writer"], "routes/s", "C, 1000 a send", rates["C"], 0.85)


NEAR_END = f"""
link set eth0 up
addr add {NODE}/24 dev eth0
"""
FAR_END = f"""
link set lo up
link add far0 type veth peer name eth0
link set far0 up
addr add {FAR}/24 dev far0
"""


SAMPLE = 400
"""Routes that are watched, at least, where there are as many."""


def beside_bird() -> bool:
    """Install SIZE routes while somebody watches a sample of them, from the first to the last; beside BIRD.

    BIRD gets them by BGP from a second BIRD, and reads its messages in the meantime; we are given the wish. So it is
    told as well how long we take from then on, which is before anything is encoded.
    """
    networks = prefixes(SIZE)
    state = KernelState(routes=wish(networks))
    mask = (1 << 6 + (SIZE // SAMPLE).bit_length()) - 1 if SIZE > SAMPLE else 0
    watched = sum(not int(network.network_address) & mask for network in networks)
    spans: dict[str, list[float]] = {"bird": [], "engine": [], "whole": []}
    with linked() as (near, far), tempfile.TemporaryDirectory() as folder, watching(mask) as watcher:
        pair = BirdPair(Path(folder), near, far, networks)
        for _ in range(RUNS):
            watcher.expect(watched)
            with pair.running():
                first, last = _span(watcher)
                await_all("BIRD", SIZE)  # the last of the sample is not always the last of all
            require(0, counted(), "left by BIRD")
            spans["bird"].append((last - first) * 1000)
            watcher.expect(watched)
            with engine() as kernel:
                gc.collect()
                start = time.monotonic()
                make(kernel, state)
            first, last = _span(watcher)
            require(SIZE, counted(), "engine")
            empty()
            spans["engine"].append((last - first) * 1000)
            spans["whole"].append((last - start) * 1000)
    peer, name = "BIRD by BGP, from first to last", f"routes: {SIZE} in the kernel"
    kept = [
        tell_ratio(f"{name}, from first to last", spans["engine"], "ms", peer, spans["bird"], 1.0, better="lower"),
        tell_ratio(f"{name}, from wish to last", spans["whole"], "ms", peer, spans["bird"], 1.1, better="lower"),
    ]
    return all(kept)


def _span(watcher: Watcher) -> tuple[float, float]:
    """Return when the first and the last of the routes came that were expected."""
    times = [each.at for each in watcher.seen() if each.new]
    return times[0], times[-1]


NEAR_END = f"""
link set lo up
link set eth0 up
addr add {NODE}/24 dev eth0
"""
FAR_END = f"""
link set lo up
link add far0 type veth peer name eth0
link set far0 up
addr add {FAR}/24 dev far0
"""


@contextmanager
def linked() -> Iterator[tuple[Space, Space]]:
    """Be on one of two nodes that share a link."""
    far = Space(FAR_END)
    try:
        with inside() as near:
            with far.entered():
                ip_batch(f"link set eth0 netns {near.path}\n")
            ip_batch(NEAR_END)
            yield near, far
    finally:
        far.close()
