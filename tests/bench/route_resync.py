"""What it costs to read a whole table back in which nothing has changed: the time, and the memory."""

import json
import subprocess
import sys
import time
from pathlib import Path

from figures import RUNS, tell, tell_ratio
from route_space import ONE_LINK, counted, empty, engine, inside, make, prefixes, require, scaled, timed, wish

from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelState

HERE = Path(__file__).parent
COUNT = scaled(65_536)


def nothing_to_do() -> bool:
    """Read COUNT routes back that are as they should be; beside `ip route show`, whose output costs it nothing."""
    ours: list[float] = []
    theirs: list[float] = []
    state = KernelState(routes=wish(prefixes(COUNT)))
    with inside(ONE_LINK):
        with engine() as kernel:
            make(kernel, state)
            require(COUNT, counted(), "engine")
            for _ in range(RUNS):
                ours.append(timed(lambda: _resync(kernel))[0] * 1000)
                if kernel.routes.is_due(time.monotonic()):
                    raise AssertionError("there was something to do")
                theirs.append(timed(_show)[0] * 1000)
        taken = [_memory() for _ in range(RUNS)]
    # Whoever wants 65,536 routes holds that wish, engine or not; both figures are above a process without routes.
    engines = [each["peak"] - each["wish"] for each in taken]
    kept = [
        tell_ratio(f"routes: resync of {COUNT}", ours, "ms", "ip route show > /dev/null", theirs, 1.3, better="lower"),
        tell(f"routes: memory that the engine takes for {COUNT}, at its peak", engines, "MiB", 40.0),
        tell("routes: the same with the wish, as Python objects", [each["peak"] for each in taken], "MiB", 48.0),
    ]
    return all(kept)


def _resync(kernel: Kernel) -> None:
    kernel.must_read("bench")
    kernel.resync()


def _show() -> None:
    subprocess.run(["ip", "-4", "route", "show"], check=True, stdout=subprocess.DEVNULL)


def _memory() -> dict[str, float]:
    """Let a process of its own, in which nothing else was before, do it again."""
    empty()
    command = [sys.executable, HERE / "route_memory.py", str(COUNT)]
    said: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said
