"""The socket that felix-cni talks to: one call a connection, in bounded size and time, whatever is sent."""

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import structlog

from felix_py.allocations import Allocations
from felix_py.cni import graves, results
from felix_py.cni.commands import Commands, Node
from felix_py.cni.notes import Notes
from felix_py.cni.request import CniError, Code, Command, parse, split, version_of
from felix_py.model import Fault, Invalid

__all__ = ["CniServer", "Node"]

MAXIMUM_CALL = 2 << 20
"""Bytes of a call; the shim sends one of at most 1 MiB, and a node's configuration has some kilobytes."""

RECEIVE_SECONDS = 5.0
"""The shim sends all that it has at once; who needs longer is no shim."""

ANSWER_SECONDS = 5.0
CONNECTIONS = 64
"""Calls in hand at once; more wait in the socket's backlog."""

DESCRIPTORS = 4
"""Descriptors accepted with a call, of which the first counts; more are dropped by the kernel."""

MAY_SUCCEED_LATER = (Code.IO_FAILURE, Code.KERNEL_REFUSED, Code.TRY_AGAIN_LATER)
"""Errors of a DEL that was left as a note with which it is kept."""

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = structlog.get_logger()

Result = TypeVar("Result")


class Rubbish(Exception):  # noqa: N818 - named for what it is
    """What came is no call; the sentence says why."""


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
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def serve(self) -> None:
        """Serve until cancelled; calls in hand are finished or undone before this returns.

        Raises:
            Invalid: when the socket cannot be made at the path.
        """
        listener = self._listen()
        try:
            # From here on felix-cni reaches us and leaves no note; nobody is served before those that it has left.
            await asyncio.to_thread(graves.bury)  # what an agent that was killed had still to remove
            await self._honour_notes()
            async with asyncio.TaskGroup() as calls:
                while True:
                    await self._slots.acquire()
                    calls.create_task(self._serve_one(await _accept(listener)))
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)
            await asyncio.to_thread(self._commands.close)

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

    async def _serve_one(self, connection: socket.socket) -> None:
        try:
            with connection:
                async with _call(connection) as (data, descriptors):
                    answer = await self.answer(data, descriptors[0] if descriptors else None)
                await _in_time(_send(connection, answer.line), ANSWER_SECONDS, "the answer was not read")
        except Rubbish as rubbish:
            log.warning("api.rubbish", socket=str(self._path), reason=str(rubbish))
        except OSError as error:
            log.warning("api.rubbish", socket=str(self._path), reason=f"the caller went away: {error.strerror}")
        finally:
            self._slots.release()

    async def answer(self, data: bytes, netns: int | None) -> Answer:
        """Do what a call asks for.

        Args:
            data: the call, as the shim sends it.
            netns: descriptor of the pod's namespace, where one came with it.
        """
        started, standard_input, command = monotonic(), b"", ""
        try:
            environment, standard_input = split(data)
            command = environment.get("CNI_COMMAND", "")
            request = parse(environment, standard_input)
            document = await self._commands.carry_out(request, netns)
            if request.command is Command.DEL:  # felix-cni may have been killed before it took its note back
                self._notes.done(f"{request.container_id}@{request.interface}")
        except CniError as refusal:
            log.warning(
                "api.rubbish" if refusal.code is Code.DECODING_FAILURE else "cni.refused",
                command=command,
                code=int(refusal.code),
                reason=refusal.message,
                milliseconds=round((monotonic() - started) * 1000, 1),
            )
            return Answer(b"1" + _line(results.error(version_of(standard_input), refusal)), refusal.code)
        return Answer(b"0" + (_line(document) if document is not None else b""))


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


async def _accept(listener: socket.socket) -> socket.socket:
    """Return the next connection; while descriptors are short, wait for some to be closed."""
    while True:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        except ConnectionAbortedError:
            continue
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                raise
            log.warning("api.rubbish", reason=f"no connection can be accepted: {error.strerror}")
            await asyncio.sleep(0.1)
        else:
            return connection


@asynccontextmanager
async def _call(connection: socket.socket) -> AsyncIterator[tuple[bytes, list[int]]]:
    """Give one call and the descriptors that came with it, which are closed afterwards."""
    descriptors: list[int] = []
    try:
        waiting = _receive(connection, descriptors)
        yield await _in_time(waiting, RECEIVE_SECONDS, "the call was not complete"), descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    """Read up to the end of the caller's half; asyncio's streams would lose the descriptors."""
    data = bytearray()
    while True:
        try:  # first: felix-cni has nearly always sent everything by now
            piece, came, _, _ = socket.recv_fds(connection, 1 << 16, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await _readable(connection)
            continue
        descriptors += came
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > MAXIMUM_CALL:
            raise Rubbish(f"a call had more than {MAXIMUM_CALL} bytes")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


async def _send(connection: socket.socket, answer: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, answer)


async def _in_time(work: Awaitable[Result], seconds: float, otherwise: str) -> Result:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as late:
        raise Rubbish(f"{otherwise} within {seconds:.0f} s") from late
