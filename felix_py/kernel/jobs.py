"""Several questions to the kernel in one call, also inside other network namespaces.

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
from struct import Struct
from typing import NamedTuple, NoReturn

from felix_py.kernel import roundtrip
from felix_py.kernel.messages import ERROR, HEADER, messages, refusal
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
        sock: that of `roundtrip.exchange`; None opens one inside `namespace`, for as long as this takes.
        namespace: its descriptor.
        here: path and content of files that are written in this thread's own namespace, before; those that are not
            there are passed over.
        there: and in the other one.
    """

    asked: bytes
    last: int
    sock: socket.socket | None = None
    namespace: int = -1
    here: Mapping[str, str] = {}
    there: Mapping[str, str] = {}


class Done(NamedTuple):
    """What became of a job.

    Attributes:
        answers: messages, one behind the other.
        broken: why there are no answers; ECANCELED where it was in vain.
        is_well: there are answers, and no refusal among them.
    """

    answers: bytes = b""
    broken: Broken | None = None
    is_well: bool = False

    @property
    def is_in_vain(self) -> bool:
        """Say whether it was not begun, because answers may still come on its socket to one before."""
        return self.broken is not None and self.broken.error.errno == errno.ECANCELED


IN_VAIN = Done(broken=Broken(Step.EXCHANGE, "", OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))))


JOB = Struct("@2i5I2iqQ2i0q")
"""struct job of exchange.c."""

OUTCOME = len(("well", "found", "at", "step", "file"))
"""How many fields at the end of it say what became of it."""

NO_FILES = b"\0"


PODS = 64
"""Namespaces whose parameters are set in one procfs."""


class _Home:
    """The namespace of a thread, open for as long as the thread lives: each pod's is left for it again."""

    def __init__(self) -> None:
        self.descriptor = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.descriptor)


class _Procfs:
    """A procfs for parameters of other namespaces, and soon another one; /proc where a thread may have none.

    Linux keeps the names below /proc/sys that anybody has looked up, each once for every namespace, and all of one name
    in one list. Whoever comes with a new namespace goes through that list (`__d_lookup`, `proc_sys_compare`): with 1600
    pods for longer than a veth takes. A procfs has lists of its own, which go with it.
    """

    def __init__(self, functions: Library) -> None:
        self.descriptor: int = functions.own_procfs()
        self.left = PODS

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


_of_thread = threading.local()


def _home() -> int:
    """Return a descriptor of the namespace in which this thread asked for the first time."""
    try:
        home: _Home = _of_thread.home
    except AttributeError:
        home = _of_thread.home = _Home()
    return home.descriptor


def _procfs(functions: Library, count: int) -> int:
    """Return a descriptor of the procfs of this thread, for so many namespaces; a negative number where it has none."""
    procfs: _Procfs | None = getattr(_of_thread, "procfs", None)
    if procfs is None or procfs.left <= 0:
        procfs = _of_thread.procfs = _Procfs(functions)
    procfs.left -= count
    return procfs.descriptor


def do(jobs: Sequence[Job], functions: Library | None = FUNCTIONS) -> list[Done]:
    """Do jobs, one after the other; return of each what became of it.

    After each of them this thread is where it was before. Nothing is raised.

    Args:
        jobs: any number.
        functions: those compiled; None does it in Python.
    """
    if functions is None:
        return _done_in_python(jobs)
    rows, text = _packed(jobs)
    array = (ctypes.c_char * len(rows)).from_buffer(rows)
    inside = sum(bool(job.there) for job in jobs)
    procfs = _procfs(functions, inside) if inside else -1
    if functions.all(_home(), procfs, ctypes.byref(array), len(jobs), text, ANSWERS.address, ROOM) < len(jobs):
        _lost()
    return [_done(job, *row[-OUTCOME:]) for job, row in zip(jobs, JOB.iter_unpack(rows), strict=True)]


def _packed(jobs: Sequence[Job]) -> tuple[bytearray, bytes]:
    """Return jobs as exchange.c has them, and the text of all of them: what they say of it is where it begins."""
    rows, parts, at = bytearray(JOB.size * len(jobs)), list[bytes](), 0
    for number, job in enumerate(jobs):
        sock = -1 if job.sock is None else job.sock.fileno()
        here, there = _strings(job.here), _strings(job.there)
        second, third = at + len(here), at + len(here) + len(there)
        head = sock, job.namespace, job.last, at, second, third, len(job.asked), ANSWER_SECONDS
        JOB.pack_into(rows, number * JOB.size, *head, *(0,) * OUTCOME)
        parts += here, there, job.asked
        at = third + len(job.asked)
    return rows, b"".join(parts)


def _done(job: Job, well: int, found: int, at: int, step: int, file: int) -> Done:
    if found >= 0:
        return Done(bytes(ANSWERS.view[at : at + found]), is_well=bool(well))
    where = Step(step)
    path = next(iter([*_files(job, where)][file:]), "")
    return Done(broken=Broken(where, path, OSError(-found, os.strerror(-found))))


def _files(job: Job, step: Step) -> Mapping[str, str]:
    return {Step.HERE: job.here, Step.THERE: job.there}.get(step, {})


def _strings(files: Mapping[str, str]) -> bytes:
    """Return files as exchange.c has them."""
    if not files:
        return NO_FILES
    return "".join([*(f"{path}\0{content}\0" for path, content in files.items()), "\0"]).encode()


# --- the same in Python


def _done_in_python(jobs: Sequence[Job]) -> list[Done]:
    found: list[Done] = []
    late = set[socket.socket | None]()  # on which answers may still come
    for job in jobs:
        if job.sock in late:
            found.append(IN_VAIN)
            continue
        try:
            found.append(_exchanged(job))
        except Broken as broken:
            found.append(Done(broken=broken))
            if job.sock is not None:
                late.add(job.sock)
    return found


def _are_well(answers: bytes) -> bool:
    """Say whether these are whole messages, and none of them a refusal."""
    size = 0
    for kind, flags, _, _, body in messages(answers):
        if kind == ERROR and refusal(flags, body)[0]:
            return False
        size += (HEADER.size + len(body) + 3) & ~3
    return size == len(answers)


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
    with sock:
        return _asked(job, sock)


def _asked(job: Job, sock: socket.socket) -> Done:
    try:
        answers = roundtrip.exchanged(sock, job.asked, job.last)
    except OSError as error:
        raise Broken(Step.EXCHANGE, "", error) from error
    return Done(answers, is_well=_are_well(answers))


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
