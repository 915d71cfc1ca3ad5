"""Interrupts `felix-lab up` at one place after the other, and says what became of each call.

`python interrupting.py NAME TOPOLOGY EVENT STEP` sends SIGINT at every STEP-th place from where the command holds the
lab to where the lab is up. With EVENT `opcode` a place is an instruction of what takes, holds and gives back, until
the first namespace is made; with `line` it is a line of anything in felix_py.lab, until the lab is up. Each place is a
call of its own, in a process of its own. Prints one JSON document for each: the place, the status (null where the call
did not end), what it said, and what it left; the first that does not end, or leaves something, is the last.
"""

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from labs import left_of
from pyroute2 import netns

from felix_py.lab import interrupts, lifecycle, main, state

PATIENCE = 20.0
"""Seconds after which a call is said not to end."""

REACHED_END = 77
"""Status of a call that has fewer places."""

HOLDING = {interrupts.__file__, lifecycle.__file__, state.__file__, contextlib.__file__}
FILES = {"opcode": HOLDING, "line": HOLDING | {str(path) for path in Path(state.__file__).parent.glob("*.py")}}


class Places:
    """Counts the places that the program passes, and interrupts it at one of them."""

    def __init__(self, event: str, wanted: int) -> None:
        self.event = event
        self.wanted = wanted
        self.passed = 0
        self.begun = False

    def trace(self, frame: FrameType, _: str, __: Any) -> Callable[..., Any] | None:
        """Follow the frames that matter; sys.settrace."""
        self.begun = self.begun or frame.f_code.co_name == lifecycle.refuse_second.__name__
        if not self.begun or frame.f_code.co_filename not in FILES[self.event]:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = self.event == "opcode", self.event == "line"
        return self.count

    def count(self, _: FrameType, event: str, __: Any) -> Callable[..., Any]:
        """Count one place."""
        if event == self.event:
            self.passed += 1
            if self.passed == self.wanted:
                sys.settrace(None)
                os.kill(os.getpid(), signal.SIGINT)
        return self.count

    @staticmethod
    def until_done(bring_up: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that brings a lab up, with no place after it: a lab that is up stays."""

        def counted(*arguments: Any) -> Any:
            done = bring_up(*arguments)
            sys.settrace(None)
            return done

        return counted


def call(name: str, topology: str, places: Places) -> int:
    """Run the command until it is interrupted, or has no more places."""

    def no_more(*_: Any) -> None:
        os._exit(REACHED_END)

    if places.event == "opcode":
        netns.create = no_more
    lifecycle._up = places.until_done(lifecycle._up)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.settrace(places.trace)
    status = main.main(["--name", name, "up", "--topology", topology])
    return status if places.passed >= places.wanted else REACHED_END


def interrupted(name: str, topology: str, places: Places) -> dict[str, Any]:
    """Call it in a process of its own; return what became of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(writer, 2)
        os.close(writer)
        status = 1
        try:
            status = call(name, topology, places)
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    ended = os.pidfd_open(child)
    in_time = bool(select.select([ended], [], [], PATIENCE)[0])
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(ended)
    with os.fdopen(reader) as complaint:
        said = complaint.read() if in_time else ""  # what a killed one left alive may hold the pipe open
    code = os.waitstatus_to_exitcode(status) if in_time else None
    return {"place": places.wanted, "status": code, "said": said, "left": left_of(name)}


def every(name: str, topology: str, event: str, step: int) -> None:
    """Go through all places."""
    place = 1
    while (found := interrupted(name, topology, Places(event, place)))["status"] != REACHED_END:
        sys.stdout.write(f"{json.dumps(found)}\n")
        if found["status"] is None or found["left"]:
            break  # the next ones would as well
        place += step
    main.main(["--name", name, "down"])


if __name__ == "__main__":
    lab, source, kind, stride = sys.argv[1:]
    every(lab, source, kind, int(stride))
