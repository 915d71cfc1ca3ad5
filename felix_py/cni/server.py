"""The socket that felix-cni talks to: one call a connection, in bounded size and time, whatever is sent."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple, TypeVar

import structlog

from felix_py.allocations import Allocations
from felix_py.cni import graves, results
from felix_py.cni.arrivals import Arrival, Rubbish
from felix_py.cni.coming import Coming, Say
from felix_py.cni.commands import Commands, Document, Node
from felix_py.cni.configuration import version_of
from felix_py.cni.door import Door
from felix_py.cni.notes import Notes
from felix_py.cni.request import parse, split
from felix_py.cni.spec import CniError, Code, Command
from felix_py.model import Fault, Invalid

__all__ = ["CniServer", "Node"]

RECEIVE_SECONDS = 5.0
"""The shim sends all that it has at once; who needs longer is no shim."""

ANSWER_SECONDS = 5.0
TURNS_TO_BEGIN = 2
"""Of the loop: a call from another thread makes the task in one, and the task begins in the next."""

MAY_SUCCEED_LATER = (Code.IO_FAILURE, Code.KERNEL_REFUSED, Code.TRY_AGAIN_LATER)
"""Errors of a DEL that was left as a note with which it is kept."""

log = structlog.get_logger()

Result = TypeVar("Result")


class Answer(NamedTuple):
    """What the shim prints, behind the digit of its exit status; and the code of an error."""

    line: bytes
    code: Code | None = None


class CniServer:
    """Accepts calls at `path` for one node."""

    def __init__(self, path: Path, node: Node, store: Allocations) -> None:
        self._path = path
        self._commands = Commands(node, store)
        self._notes = Notes(path)

    async def serve(self) -> None:
        """Serve until cancelled; calls in hand are finished or undone before this returns.

        Raises:
            Invalid: when the socket cannot be made at the path.
        """
        listener, loop = self._listen(), asyncio.get_running_loop()
        try:
            # From here on felix-cni reaches us and leaves no note; nobody is served before those that it has left.
            await asyncio.to_thread(graves.bury)  # what an agent that was killed had still to remove
            await self._honour_notes()
            async with asyncio.TaskGroup() as calls:

                def handed_over(arrival: Arrival) -> None:
                    calls.create_task(self._serve_one(arrival))

                await _until_stopped(
                    Door(
                        listener,
                        self._commands,
                        hand_over=lambda arrival: loop.call_soon_threadsafe(handed_over, arrival),
                        done=lambda several: loop.call_soon_threadsafe(self._note, several),
                    )
                )
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)
            await asyncio.to_thread(self._commands.close)

    def _note(self, done: list[Coming]) -> None:
        for coming in done:
            self._commands.note(coming)

    def _listen(self) -> socket.socket:
        """Make the socket; nobody can connect before its mode is set, for it does not listen yet."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(
                missing_ok=True
            )  # left by an agent that was killed; the node's lock says that we are alone
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(128)
        except OSError as error:
            listener.close()
            sentence = f"the CNI socket cannot be made: {error.strerror or error}; give another runDirectory"
            raise Invalid(Fault(str(self._path), "", sentence)) from error
        return listener

    async def _honour_notes(self) -> None:
        """Do the DELs that were asked for while no agent was there."""
        try:
            for name, data in self._notes.calls():
                answer = await self.answer(data, None)
                if answer.code not in MAY_SUCCEED_LATER:
                    self._notes.done(name)  # or it stays for the next start, and the log tells why
        except OSError as error:
            log.warning("datastore.fault", fault=f"{error.filename} cannot be read: {error.strerror}; see its mode")

    async def _serve_one(self, arrival: Arrival) -> None:
        try:
            answer = await self._answered(arrival)
            waiting = _send(arrival.connection, answer.line[arrival.sent :])
            await _in_time(waiting, ANSWER_SECONDS, "the answer was not read")
        except Rubbish as rubbish:
            log.warning("api.rubbish", socket=str(self._path), reason=str(rubbish))
        except OSError as error:
            log.warning("api.rubbish", socket=str(self._path), reason=f"the caller went away: {error.strerror}")
        finally:
            arrival.close()

    async def _answered(self, arrival: Arrival) -> Answer:
        if arrival.coming is not None:  # an ADD that was begun at the door
            return await self._answer(partial(self._commands.complete, arrival.coming), bytes(arrival.data))
        await _in_time(_received(arrival), RECEIVE_SECONDS, "the call was not complete")
        return await self.answer(bytes(arrival.data), arrival.netns, arrival.say)

    async def answer(self, data: bytes, netns: int | None, say: Say | None = None) -> Answer:
        """Do what a call asks for.

        Args:
            data: the call, as the shim sends it.
            netns: descriptor of the pod's namespace, where one came with it.
            say: is given a result as soon as there is one.
        """

        async def done() -> Document:
            request = parse(*split(data))
            document = await self._commands.carry_out(request, netns, say)
            if request.command is Command.DEL:  # felix-cni may have been killed before it took its note back
                self._notes.done(f"{request.container_id}@{request.interface}")
            return document

        return await self._answer(done, data)

    async def _answer(self, work: Callable[[], Awaitable[Document]], data: bytes) -> Answer:
        """Make of a result, or of a refusal, what the shim prints."""
        started = monotonic()
        try:
            return Answer(results.success(await work()))
        except CniError as refusal:
            environment, standard_input = _parts(data)
            log.warning(
                "api.rubbish" if refusal.code is Code.DECODING_FAILURE else "cni.refused",
                command=environment.get("CNI_COMMAND", ""),
                code=int(refusal.code),
                reason=refusal.message,
                milliseconds=round((monotonic() - started) * 1000, 1),
            )
            return Answer(b"1" + results.line(results.error(version_of(standard_input), refusal)), refusal.code)


def _parts(data: bytes) -> tuple[Mapping[str, str], bytes]:
    try:
        return split(data)
    except CniError:
        return {}, b""


async def _until_stopped(door: Door) -> None:
    """Let calls in until this is cancelled; what the door has begun is then in the loop's hands."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="door")
    work = asyncio.get_running_loop().run_in_executor(thread, door.run)
    try:
        await asyncio.shield(work)
    finally:
        door.close()
        await asyncio.wait([work])
        # What was handed over last begins now, so that it is undone when it is stopped, and not just forgotten.
        for _ in range(TURNS_TO_BEGIN):
            await asyncio.sleep(0)


async def _received(arrival: Arrival) -> None:
    """Read up to the end of the caller's half; asyncio's streams would lose the descriptors."""
    while not arrival.read():
        await _readable(arrival.connection)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


async def _send(connection: socket.socket, answer: bytes) -> None:
    if answer:
        await asyncio.get_running_loop().sock_sendall(connection, answer)


async def _in_time(work: Awaitable[Result], seconds: float, otherwise: str) -> Result:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as late:
        raise Rubbish(f"{otherwise} within {seconds:.0f} s") from late
