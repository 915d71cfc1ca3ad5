"""Run as a program: the memory that routes cost a process with the route engine in it, said as one JSON object."""

import gc
import json
import sys
from pathlib import Path

from route_space import engine, make, memory, prefixes, wish

from felix_py.kernel.objects import KernelState

RESYNCS = 3


def main(count: int) -> None:
    """Have routes wished, written and read back several times.

    Says, in MiB, `wish` and `peak` above a process in which all is the same but that there is no route: what the wish
    takes, whoever holds it, and the most that was ever resident.
    """
    with engine() as kernel:
        make(kernel, KernelState())
        gc.collect()
        idle = memory()["VmRSS"]
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        state = KernelState(routes=wish(prefixes(count)))
        wished = memory()["VmRSS"]
        make(kernel, state)
        for _ in range(RESYNCS):
            kernel.must_read("bench")
            kernel.resync()
        if len(make(kernel, state).routes) or len(list(kernel.routes.ours())) != count:
            raise AssertionError("there was something to do")
        json.dump({"wish": wished - idle, "peak": memory()["VmHWM"] - idle}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
