"""Several questions to the kernel in one call, also inside other network namespaces, where a socket stays open.

A thread lets go of Python's lock once for all of them (`exchange_all` of exchange.c). Where the library could not be
compiled, Python does the same.
"""

import ctypes
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple, NoReturn

from felix_py.kernel import link_codec, roundtrip
from felix_py.kernel.messages import ERROR, RTM_NEWLINK, messages, refusal
from felix_py.kernel.roundtrip import ANSWER_SECONDS, ANSWERS, FUNCTIONS, ROOM, Library

CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Step(IntEnum):
    """What is done inside a namespace, in this order; exchange.c has the same numbers."""

    HERE = 0
    ENTER = 1
    THERE = 2
    OPEN = 3
    EXCHANGE = 4
    RETURN = 5


class Broken(Exception):  # noqa: N818 - named for what it is
    """An exchange that came no further than a step; `error` is the kernel's word on it.

    Attributes:
        path: the file that it was about; empty where it was about none.
    """

    def __init__(self, step: Step, path: str, error: OSError) -> None:
        super().__init__(f"{step.name}: {error}")
        self.step = step
        self.path = path
        self.error = error


class Job(NamedTuple):
    """An exchange.

    Attributes:
        asked: messages, one behind the other.
        last: the number of that of which an answer is waited for.
        sock: that of `roundtrip.exchange`; None opens one inside `namespace`.
        namespace: its descriptor.
        here: path and content of files that are written in this thread's own namespace, before; those that are not
            there are passed over.
        there: and in the other one.
        needs: which of the jobs before this one has to come to its end without any refusal; else this one is in vain.
        peer: and the other end of the interface that it asked for has to have this index; 0 is any.
    """

    asked: bytes
    last: int
    sock: socket.socket | None = None
    namespace: int = -1
    here: Mapping[str, str] = {}
    there: Mapping[str, str] = {}
    needs: int | None = None
    peer: int = 0


class Done(NamedTuple):
    """What became of a job.

    Attributes:
        answers: messages, one behind the other.
        sock: that was opened inside the namespace, and is now whoever's asked.
        broken: why there are no answers; ECANCELED where it was in vain.
    """

    answers: bytes = b""
    sock: socket.socket | None = None
    broken: Broken | None = None

    @property
    def is_in_vain(self) -> bool:
        """Say whether it was not begun, because of what it needs."""
        return self.broken is not None and self.broken.error.errno == errno.ECANCELED


IN_VAIN = Done(broken=Broken(Step.EXCHANGE, "", OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))))


class _Job(ctypes.Structure):
    """struct job of exchange.c."""

    _fields_ = (
        ("sock", ctypes.c_int32),
        ("namespace", ctypes.c_int32),
        ("needs", ctypes.c_int32),
        ("peer", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("here", ctypes.c_char_p),
        ("there", ctypes.c_char_p),
        ("asked", ctypes.c_char_p),
        ("length", ctypes.c_uint64),
        ("seconds", ctypes.c_int64),
        ("found", ctypes.c_int64),
        ("at", ctypes.c_uint64),
        ("step", ctypes.c_int32),
        ("file", ctypes.c_int32),
        ("opened", ctypes.c_int32),
    )
    found: int
    at: int
    step: int
    file: int
    opened: int


class _Home:
    """The namespace of a thread, open for as long as the thread lives: each pod's is left for it again."""

    def __init__(self) -> None:
        self.descriptor = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.descriptor)


_of_thread = threading.local()


def _home() -> int:
    """Return a descriptor of the namespace in which this thread asked for the first time."""
    try:
        home: _Home = _of_thread.home
    except AttributeError:
        home = _of_thread.home = _Home()
    return home.descriptor


def do(jobs: Sequence[Job], functions: Library | None = FUNCTIONS) -> list[Done]:
    """Do jobs, one after the other; return of each what became of it.

    After each of them this thread is where it was before. Nothing is raised.

    Args:
        jobs: any number.
        functions: those compiled; None does it in Python.
    """
    if functions is None:
        return _done_in_python(jobs)
    array = (_Job * len(jobs))(*map(_packed, jobs))
    if functions.all(_home(), ctypes.byref(array), len(jobs), ANSWERS.address, ROOM) < len(jobs):
        _lost()
    return [_done(job, place) for job, place in zip(jobs, array, strict=True)]


def _packed(job: Job) -> _Job:
    sock = -1 if job.sock is None else job.sock.fileno()
    needs = -1 if job.needs is None else job.needs
    here, there = _strings(job.here), _strings(job.there)
    return _Job(
        sock, job.namespace, needs, job.peer, job.last, 0, here, there, job.asked, len(job.asked), ANSWER_SECONDS
    )


def _done(job: Job, place: _Job) -> Done:
    if place.found >= 0:
        answers = bytes(ANSWERS.view[place.at : place.at + place.found])
        if job.sock is not None:
            return Done(answers)
        return Done(answers, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE, place.opened))
    step, code = Step(place.step), -place.found
    path = next(iter([*_files(job, step)][place.file :]), "")
    return Done(broken=Broken(step, path, OSError(code, os.strerror(code))))


def _files(job: Job, step: Step) -> Mapping[str, str]:
    return {Step.HERE: job.here, Step.THERE: job.there}.get(step, {})


def _strings(files: Mapping[str, str]) -> bytes:
    return "".join(f"{path}\0{content}\0" for path, content in files.items()).encode()


# --- the same in Python


def _done_in_python(jobs: Sequence[Job]) -> list[Done]:
    found: list[Done] = []
    late: set[socket.socket | None] = set()  # on which answers may still come
    for job in jobs:
        if (job.needs is not None and not _are_well(found[job.needs], job.peer)) or job.sock in late:
            found.append(IN_VAIN)
            continue
        try:
            found.append(_exchanged(job))
        except Broken as broken:
            found.append(Done(broken=broken))
            if job.sock is not None:
                late.add(job.sock)
    return found


def _are_well(done: Done, peer: int) -> bool:
    """Say whether answers are what was hoped for: no refusal among them, nor an interface with another peer."""
    for kind, flags, _, _, body in messages(done.answers):
        if kind == ERROR and refusal(flags, body)[0]:
            return False
        if kind == RTM_NEWLINK and peer not in (0, link_codec.peer(body)):
            return False
    return done.broken is None


def _exchanged(job: Job) -> Done:
    if job.sock is not None:
        return _asked(job, job.sock)
    _write(Step.HERE, job.here)
    with entered(job.namespace):
        _write(Step.THERE, job.there)
        try:
            sock = roundtrip.open_socket()
        except OSError as error:
            raise Broken(Step.OPEN, "", error) from error
    try:
        return _asked(job, sock)._replace(sock=sock)
    except Broken:
        sock.close()
        raise


def _asked(job: Job, sock: socket.socket) -> Done:
    try:
        return Done(roundtrip.exchanged(sock, job.asked, job.last))
    except OSError as error:
        raise Broken(Step.EXCHANGE, "", error) from error


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Have this thread in a namespace for a moment: a thread of its own for each pod would take as long as a veth.

    Raises:
        Broken: where it cannot be entered.
    """
    home = _home()
    try:
        set_namespace(namespace)
    except OSError as error:
        raise Broken(Step.ENTER, "", error) from error
    try:
        yield
    finally:
        try:
            set_namespace(home)
        except OSError:
            _lost()


def _write(step: Step, files: Mapping[str, str]) -> None:
    for path, content in files.items():
        try:
            roundtrip.write(path, content)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Broken(step, path, error) from error


def set_namespace(namespace: int) -> None:
    """Move this thread; `os.setns` came with Python 3.12.

    Raises:
        OSError: it stays where it was.
    """
    if _libc.setns(namespace, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _lost() -> NoReturn:
    # Only without memory. What this thread did next, it would do to the pod: better no agent, and then a new one,
    # which finds everything as after any other kill.
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit
