"""Several questions to the kernel in one call, also inside other network namespaces.

A thread lets go of Python's lock once for all of them (`exchange_all` of exchange.c). Where the library could not be
compiled, Python does the same.
"""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import IntEnum
from itertools import chain
from struct import Struct
from typing import NamedTuple, NoReturn

from felix_py.kernel import roundtrip
from felix_py.kernel.link_codec import IFF_RUNNING
from felix_py.kernel.messages import ERROR, HEADER, messages, refusal
from felix_py.kernel.roundtrip import ANSWER_SECONDS, ANSWERS, FUNCTIONS, ROOM, Library

CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = "/proc/thread-self/ns/net"

SIOCGIFFLAGS, SIOCETHTOOL, ETHTOOL_GLINK = 0x8913, 0x8946, 0x0A
"""Questions after an interface by its name, include/uapi/linux/{sockios,ethtool}.h."""

QUESTION, FLAGS = Struct("16sQ16x"), Struct("=16xH")
"""struct ifreq, with an address, and with flags."""

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
        devices: names of interfaces, where the socket is, that are looked at when all jobs are done.
    """

    asked: bytes
    last: int
    sock: socket.socket | None = None
    namespace: int = -1
    here: Mapping[str, str] = {}
    there: Mapping[str, str] = {}
    devices: Sequence[str] = ()


class Done(NamedTuple):
    """What became of a job.

    Attributes:
        answers: messages, one behind the other.
        broken: why there are no answers; ECANCELED where it was in vain.
        is_well: there are answers, and no refusal among them.
        idle: how many of its devices carried no packets when all jobs were done; 0 where there are no answers.
    """

    answers: bytes = b""
    broken: Broken | None = None
    is_well: bool = False
    idle: int = 0

    @property
    def is_in_vain(self) -> bool:
        """Say whether it was not begun, because answers may still come on its socket to one before."""
        return self.broken is not None and self.broken.error.errno == errno.ECANCELED


IN_VAIN = Done(broken=Broken(Step.EXCHANGE, "", OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))))


JOB = Struct("@2i6I4iqQ2i0q")
"""struct job of exchange.c."""

OUTCOME = len(("well", "idle", "found", "at", "step", "file"))
"""How many fields at the end of it say what became of it."""

NOTHING = b"\0"
"""No strings, as exchange.c has them."""


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
        here, there, devices = map(_strings, (_flat(job.here), _flat(job.there), job.devices))
        second, third = at + len(here), at + len(here) + len(there)
        fourth = third + len(devices)
        head = sock, job.namespace, job.last, at, second, third, fourth, len(job.asked), ANSWER_SECONDS
        JOB.pack_into(rows, number * JOB.size, *head, -1, *(0,) * OUTCOME)
        parts += here, there, devices, job.asked
        at = fourth + len(job.asked)
    return rows, b"".join(parts)


def _done(job: Job, well: int, idle: int, found: int, at: int, step: int, file: int) -> Done:
    if found >= 0:
        return Done(bytes(ANSWERS.view[at : at + found]), None, bool(well), idle)
    where = Step(step)
    path = next(iter([*_files(job, where)][file:]), "")
    return Done(broken=Broken(where, path, OSError(-found, os.strerror(-found))))


def _files(job: Job, step: Step) -> Mapping[str, str]:
    return {Step.HERE: job.here, Step.THERE: job.there}.get(step, {})


def _flat(files: Mapping[str, str]) -> Sequence[str]:
    """Return paths, each with its content behind it."""
    return [*chain.from_iterable(files.items())]


def _strings(words: Sequence[str]) -> bytes:
    """Return strings as exchange.c has them: one behind the other, up to an empty one."""
    return "\0".join([*words, "\0"]).encode() if words else NOTHING


# --- the same in Python


def _done_in_python(jobs: Sequence[Job]) -> list[Done]:
    found: list[Done] = []
    late = set[socket.socket | None]()  # on which answers may still come
    with ExitStack() as stack:
        looks = list[tuple[int, socket.socket]]()
        for number, job in enumerate(jobs):
            if job.sock in late:
                found.append(IN_VAIN)
                continue
            try:
                sock = job.sock or stack.enter_context(_opened(job))
                found.append(_asked(job, sock))
                looks.append((number, sock))
            except Broken as broken:
                found.append(Done(broken=broken))
                if job.sock is not None:
                    late.add(job.sock)
        for number, sock in looks:
            found[number] = found[number]._replace(idle=sum(_is_idle(sock, name) for name in jobs[number].devices))
    return found


def _is_idle(sock: socket.socket, device: str) -> bool:
    """Say whether an interface of a socket's namespace carries no packets; see `count_idle` of exchange.c."""
    link = array("I", (ETHTOOL_GLINK, 0))
    with suppress(OSError):  # the next question tells
        fcntl.ioctl(sock, SIOCETHTOOL, QUESTION.pack(device.encode(), link.buffer_info()[0]))
    try:
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, QUESTION.pack(device.encode(), 0))
    except OSError:
        return True
    return not FLAGS.unpack_from(answer)[0] & IFF_RUNNING


def _are_well(answers: bytes) -> bool:
    """Say whether these are whole messages, and none of them a refusal."""
    size = 0
    for kind, flags, _, _, body in messages(answers):
        if kind == ERROR and refusal(flags, body)[0]:
            return False
        size += (HEADER.size + len(body) + 3) & ~3
    return size == len(answers)


def _opened(job: Job) -> socket.socket:
    """Write the files of a job inside a namespace, and return a socket in there."""
    _write(Step.HERE, job.here)
    with entered(job.namespace):
        _write(Step.THERE, job.there)
        try:
            return roundtrip.open_socket()
        except OSError as error:
            raise Broken(Step.OPEN, "", error) from error


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
