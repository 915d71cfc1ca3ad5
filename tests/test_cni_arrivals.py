"""Who comes in at the door: the compiled library and Python let in, read and answer the same."""

import array
import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from felix_py.cni import arrivals
from felix_py.cni.arrivals import (
    DESCRIPTORS,
    FUNCTIONS,
    MAXIMUM_CALL,
    ROOM,
    Arrival,
    Entrance,
    Library,
    Rubbish,
    let_in,
)
from felix_py.cni.door import CONNECTIONS, Door, Slots

PATIENCE = 10


@pytest.fixture(params=["compiled", "in Python"])
def functions(request: pytest.FixtureRequest) -> Library | None:
    if request.param == "in Python":
        return None
    assert FUNCTIONS is not None, "`make setup` compiles felix_py/cni/callers.c, and needs a C compiler"
    return FUNCTIONS


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tmp_path / "door"))
        made.listen(64)
        made.settimeout(0)
        yield made


@pytest.fixture
def given_back() -> list[int]:
    return []


@pytest.fixture
def bell() -> Iterator[int]:
    made = os.eventfd(0, os.EFD_CLOEXEC)
    yield made
    os.close(made)


@pytest.fixture
def entrance(listener: socket.socket, bell: int, given_back: list[int]) -> Entrance:
    return Entrance(listener, bell, given_back.append)


@pytest.fixture
def callers() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for each in made:
        each.close()


@pytest.fixture
def came() -> Iterator[list[Arrival]]:
    made: list[Arrival] = []
    yield made
    for each in made:
        if not each.told:
            each.close()


def call(listener: socket.socket, callers: list[socket.socket], data: bytes = b"", *, whole: bool = True) -> Any:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(PATIENCE)
    callers.append(caller)
    caller.connect(listener.getsockname())
    caller.sendall(data)
    if whole:
        caller.shutdown(socket.SHUT_WR)
    return caller


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_all_who_have_come_are_let_in_together(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    for number in range(5):
        call(listener, callers, b"call %d" % number)
    came += let_in(entrance, 3, 0, functions)
    assert [bytes(each.data) for each in came] == [b"call 0", b"call 1", b"call 2"]
    came += let_in(entrance, 16, 0, functions)
    assert [bytes(each.data) for each in came[3:]] == [b"call 3", b"call 4"]
    assert all(each.whole and each.netns is None for each in came)
    assert not any(os.get_inheritable(each.descriptor) or os.get_blocking(each.descriptor) for each in came)
    assert let_in(entrance, 16, 0, functions) == []


def test_who_comes_is_waited_for(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    timer = threading.Timer(0.02, call, (listener, callers, b"late"))
    timer.start()
    while not came:  # a signal may end it sooner
        came += let_in(entrance, 16, 1000 * PATIENCE, functions)
    timer.join()
    assert came[0].data == b"late"


def test_who_does_not_come_is_not_waited_for_for_ever(entrance: Entrance, functions: Library | None) -> None:
    began = time.monotonic()
    assert let_in(entrance, 16, 30, functions) == []
    assert 0.02 < time.monotonic() - began < PATIENCE


def test_while_the_bell_rings_nobody_is_let_in(
    listener: socket.socket, callers: list[socket.socket], bell: int, entrance: Entrance, functions: Library | None
) -> None:
    call(listener, callers, b"too late")
    os.eventfd_write(bell, 1)
    assert let_in(entrance, 16, -1, functions) == []


def test_an_empty_call_is_whole(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    call(listener, callers)
    came += let_in(entrance, 16, 0, functions)
    assert (came[0].whole, came[0].data) == (True, b"")


def test_who_lags_a_little_behind_is_waited_for(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "HASTE", 1000 * PATIENCE)  # however slow this machine is
    late = call(listener, callers, b"half, ", whole=False)

    def rest() -> None:
        late.sendall(b"and half")
        late.shutdown(socket.SHUT_WR)

    timer = threading.Timer(0.02, rest)
    timer.start()
    came += let_in(entrance, 16, 0, functions)
    timer.join()
    assert (came[0].whole, came[0].data) == (True, b"half, and half")


def test_who_lags_far_behind_is_read_later(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    late = call(listener, callers, b"half, ", whole=False)
    call(listener, callers, b"whole")
    came += let_in(entrance, 16, 0, functions)
    assert [(each.whole, bytes(each.data)) for each in came] == [(False, b"half, "), (True, b"whole")]
    assert not came[0].read()
    late.sendall(b"and half")
    late.shutdown(socket.SHUT_WR)
    assert came[0].read()
    assert came[0].data == b"half, and half"


def test_what_is_too_much_to_be_read_at_once_is_read_later(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    data = os.urandom(2 * ROOM + 7)
    sending = threading.Thread(target=lambda: call(listener, callers, data))
    sending.start()
    while not came:
        came += let_in(entrance, 16, -1, functions)
    while not came[0].read():
        pass
    sending.join()
    assert came[0].data == data


def test_endless_calls_are_rubbish(
    listener: socket.socket, callers: list[socket.socket], came: list[Arrival], entrance: Entrance
) -> None:
    caller = call(listener, callers, whole=False)
    came += let_in(entrance, 16, 0)
    caller.settimeout(0)

    def endless() -> None:
        for _ in range(MAXIMUM_CALL):
            with suppress(BlockingIOError):
                caller.send(bytes(1 << 16))
            came[0].read()

    with pytest.raises(Rubbish, match=f"a call had more than {MAXIMUM_CALL} bytes"):
        endless()


def test_descriptors_come_along(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    given_back: list[int],
    functions: Library | None,
) -> None:
    before = open_files()
    with open("/dev/null") as null, open("/dev/zero") as zero:  # noqa: PTH123 - for their descriptors
        caller = call(listener, callers, whole=False)
        socket.send_fds(caller, [b"a"], [zero.fileno(), null.fileno()])
        caller.shutdown(socket.SHUT_WR)
    came += let_in(entrance, 16, 0, functions)
    assert [Path(f"/proc/self/fd/{each}").readlink() for each in came[0].descriptors] == [
        Path("/dev/zero"),
        Path("/dev/null"),
    ]
    assert came[0].netns == came[0].descriptors[0]
    assert not any(map(os.get_inheritable, came[0].descriptors))
    came.pop().close()
    callers.pop().close()
    assert (open_files(), given_back) == (before, [1])


def test_too_many_descriptors_are_closed(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    before = open_files()
    with open("/dev/null") as null:  # noqa: PTH123 - for its descriptor
        many = array.array("i", [null.fileno()] * (DESCRIPTORS + 2))
        caller = call(listener, callers, whole=False)
        for _ in range(3):
            with suppress(OSError):
                caller.sendmsg([b"a"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
        caller.shutdown(socket.SHUT_WR)
    came += let_in(entrance, 16, 0, functions)
    assert (came[0].data, came[0].whole) == (b"aaa", True)
    assert 0 < len(came[0].descriptors) <= DESCRIPTORS
    came.pop().close()
    callers.pop().close()
    assert open_files() == before


def test_answers_are_sent_and_everything_is_closed(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    before = open_files()
    with open("/dev/null") as null:  # noqa: PTH123 - for its descriptor
        for number in range(3):
            caller = call(listener, callers, whole=False)
            socket.send_fds(caller, [b"%d" % number], [null.fileno()])
            caller.shutdown(socket.SHUT_WR)
    came += let_in(entrance, 16, 0, functions)
    for each in came[:2]:
        each.hold({"number": bytes(each.data).decode()})
    arrivals.answer(came, functions)
    assert [each.told for each in came] == [True, True, False], "the third has no answer yet"
    for number, caller in enumerate(callers[:2]):
        with caller.makefile("rb") as stream:
            assert stream.read() == b'0{"number": "%d"}\n' % number
    came.pop().close()
    for caller in callers:
        caller.close()
    assert open_files() == before


def test_who_takes_only_a_part_is_left_to_the_loop(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    caller = call(listener, callers)
    came += let_in(entrance, 16, 0, functions)
    came[0].hold({"much": "x" * (8 << 20)})
    arrivals.answer(came, functions)
    assert not came[0].told
    assert 0 < came[0].sent < len(came[0].answer)
    rest = came[0].answer[came[0].sent :]
    came[0].connection.settimeout(PATIENCE)
    sending = threading.Thread(target=came[0].connection.sendall, args=(rest,))
    sending.start()
    found = bytearray()
    while len(found) < len(came[0].answer):
        found += caller.recv(1 << 20)
    sending.join()
    assert found == came[0].answer


def test_who_went_away_is_left_to_the_loop(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    call(listener, callers)
    came += let_in(entrance, 16, 0, functions)
    callers.pop().close()
    came[0].hold({})
    arrivals.answer(came, functions)
    assert (came[0].told, came[0].sent) == (False, 0)
    os.fstat(came[0].descriptor)  # still open


def test_without_descriptors_nobody_is_let_in(
    listener: socket.socket,
    callers: list[socket.socket],
    came: list[Arrival],
    entrance: Entrance,
    functions: Library | None,
) -> None:
    call(listener, callers, b"whole")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir() if each.exists())
    taken = [os.dup(0) for _ in range(highest + 1 - open_files())]  # no gap below the limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken, default=highest) + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            let_in(entrance, 16, 0, functions)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)
    came += let_in(entrance, 16, 0, functions)
    assert came[0].data == b"whole"


def test_slots_are_waited_for() -> None:
    slots, taken = Slots(3), list[int]()
    assert (slots.take(2), slots.take(2)) == (2, 1)
    waiting = threading.Thread(target=lambda: taken.append(slots.take(16)))
    waiting.start()
    slots.give_back(1)
    waiting.join(PATIENCE)
    assert taken == [1]


class Nobody:
    """Pods that are never asked for."""

    def begin(self, *_: object) -> None:
        raise AssertionError

    make = begin


def test_a_door_that_ended_by_itself_can_be_closed(listener: socket.socket) -> None:
    def broken(arrival: Arrival) -> None:
        arrival.close()
        raise RuntimeError("a bug")

    door = Door(listener, Nobody(), broken, lambda _: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(listener.getsockname())
        caller.shutdown(socket.SHUT_WR)
        with pytest.raises(RuntimeError, match="a bug"):
            door.run()
    number = os.open("/dev/null", os.O_RDONLY)  # most likely has the number that the bell had
    door.close()
    os.close(number)


def test_no_more_are_let_in_than_there_is_room_for(listener: socket.socket, callers: list[socket.socket]) -> None:
    listener.listen(2 * CONNECTIONS)
    for _ in range(CONNECTIONS + 5):
        call(listener, callers, b"call")
    came: list[Arrival] = []
    enough = threading.Event()

    def hand_over(arrival: Arrival) -> None:
        came.append(arrival)
        if len(came) in (CONNECTIONS, CONNECTIONS + 5):
            enough.set()

    door = Door(listener, Nobody(), hand_over, lambda _: None)
    thread = threading.Thread(target=door.run)
    thread.start()
    try:
        assert enough.wait(PATIENCE)
        assert len(came) == CONNECTIONS
        enough.clear()
        for each in came[:5]:
            each.close()
        assert enough.wait(PATIENCE)
    finally:
        door.close()
        thread.join()
        for each in came[5:]:
            each.close()
    assert len(came) == CONNECTIONS + 5
