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


class Street:
    """What lies before a door: who comes, and who was let in."""

    def __init__(self, path: Path, functions: Library | None) -> None:
        self.functions = functions
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(2 * CONNECTIONS)
        self.listener.settimeout(0)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC)
        self.given_back: list[int] = []
        self.callers: list[socket.socket] = []
        self.came: list[Arrival] = []

    def call(self, data: bytes = b"", *, whole: bool = True) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        caller.settimeout(PATIENCE)
        self.callers.append(caller)
        caller.connect(self.listener.getsockname())
        caller.sendall(data)
        if whole:
            caller.shutdown(socket.SHUT_WR)
        return caller

    def let_in(self, most: int = 16, patience: int = 0) -> list[Arrival]:
        """Let in whoever is there now; return them."""
        found = let_in(Entrance(self.listener, self.bell, self.given_back.append), most, patience, self.functions)
        self.came += found
        return found

    def answer(self) -> None:
        arrivals.answer(self.came, self.functions)

    def close(self) -> None:
        for arrival in self.came:
            if not arrival.told:
                arrival.close()
        for each in (*self.callers, self.listener):
            each.close()
        os.close(self.bell)


@pytest.fixture
def street(tmp_path: Path, functions: Library | None) -> Iterator[Street]:
    made = Street(tmp_path / "door", functions)
    yield made
    made.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_all_who_have_come_are_let_in_together(street: Street) -> None:
    for number in range(5):
        street.call(b"call %d" % number)
    street.let_in(3, 0)
    assert [bytes(each.data) for each in street.came] == [b"call 0", b"call 1", b"call 2"]
    street.let_in()
    assert [bytes(each.data) for each in street.came[3:]] == [b"call 3", b"call 4"]
    assert all(each.whole and each.netns is None for each in street.came)
    assert not any(os.get_inheritable(each.descriptor) or os.get_blocking(each.descriptor) for each in street.came)
    assert street.let_in() == []


def test_who_comes_is_waited_for(street: Street) -> None:
    timer = threading.Timer(0.02, street.call, (b"late",))
    timer.start()
    while not street.came:  # a signal may end it sooner
        street.let_in(16, 1000 * PATIENCE)
    timer.join()
    assert street.came[0].data == b"late"


def test_who_does_not_come_is_not_waited_for_for_ever(street: Street) -> None:
    began = time.monotonic()
    assert street.let_in(16, 30) == []
    assert 0.02 < time.monotonic() - began < PATIENCE


def test_while_the_bell_rings_nobody_is_let_in(street: Street) -> None:
    street.call(b"too late")
    os.eventfd_write(street.bell, 1)
    assert street.let_in(16, -1) == []


def test_an_empty_call_is_whole(street: Street) -> None:
    street.call()
    street.let_in()
    assert (street.came[0].whole, street.came[0].data) == (True, b"")


def test_who_lags_a_little_behind_is_waited_for(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "HASTE", 1000 * PATIENCE)  # however slow this machine is
    late = street.call(b"half, ", whole=False)

    def rest() -> None:
        late.sendall(b"and half")
        late.shutdown(socket.SHUT_WR)

    timer = threading.Timer(0.02, rest)
    timer.start()
    street.let_in()
    timer.join()
    assert (street.came[0].whole, street.came[0].data) == (True, b"half, and half")


def test_who_lags_far_behind_is_read_later(street: Street) -> None:
    late = street.call(b"half, ", whole=False)
    street.call(b"whole")
    street.let_in()
    assert [(each.whole, bytes(each.data)) for each in street.came] == [(False, b"half, "), (True, b"whole")]
    assert not street.came[0].read()
    late.sendall(b"and half")
    late.shutdown(socket.SHUT_WR)
    assert street.came[0].read()
    assert street.came[0].data == b"half, and half"


def test_what_is_too_much_to_be_read_at_once_is_read_later(street: Street) -> None:
    data = os.urandom(2 * ROOM + 7)
    sending = threading.Thread(target=lambda: street.call(data))
    sending.start()
    while not street.came:
        street.let_in(16, -1)
    while not street.came[0].read():
        pass
    sending.join()
    assert street.came[0].data == data


def test_endless_calls_are_rubbish(street: Street) -> None:
    caller = street.call(whole=False)
    street.let_in()
    caller.settimeout(0)

    def endless() -> None:
        for _ in range(MAXIMUM_CALL):
            with suppress(BlockingIOError):
                caller.send(bytes(1 << 16))
            street.came[0].read()

    with pytest.raises(Rubbish, match=f"a call had more than {MAXIMUM_CALL} bytes"):
        endless()


def test_descriptors_come_along(street: Street) -> None:
    before = open_files()
    with open("/dev/null") as null, open("/dev/zero") as zero:  # noqa: PTH123 - for their descriptors
        caller = street.call(whole=False)
        socket.send_fds(caller, [b"a"], [zero.fileno(), null.fileno()])
        caller.shutdown(socket.SHUT_WR)
    street.let_in()
    assert [Path(f"/proc/self/fd/{each}").readlink() for each in street.came[0].descriptors] == [
        Path("/dev/zero"),
        Path("/dev/null"),
    ]
    assert street.came[0].netns == street.came[0].descriptors[0]
    assert not any(map(os.get_inheritable, street.came[0].descriptors))
    street.came.pop().close()
    street.callers.pop().close()
    assert (open_files(), street.given_back) == (before, [1])


def test_too_many_descriptors_are_closed(street: Street) -> None:
    before = open_files()
    with open("/dev/null") as null:  # noqa: PTH123 - for its descriptor
        many = array.array("i", [null.fileno()] * (DESCRIPTORS + 2))
        caller = street.call(whole=False)
        for _ in range(3):
            with suppress(OSError):
                caller.sendmsg([b"a"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
        caller.shutdown(socket.SHUT_WR)
    street.let_in()
    assert (street.came[0].data, street.came[0].whole) == (b"aaa", True)
    assert 0 < len(street.came[0].descriptors) <= DESCRIPTORS
    street.came.pop().close()
    street.callers.pop().close()
    assert open_files() == before


def test_answers_are_sent_and_everything_is_closed(street: Street) -> None:
    before = open_files()
    with open("/dev/null") as null:  # noqa: PTH123 - for its descriptor
        for number in range(3):
            caller = street.call(whole=False)
            socket.send_fds(caller, [b"%d" % number], [null.fileno()])
            caller.shutdown(socket.SHUT_WR)
    street.let_in()
    for each in street.came[:2]:
        each.hold({"number": bytes(each.data).decode()})
    street.answer()
    assert [each.told for each in street.came] == [True, True, False], "the third has no answer yet"
    for number, caller in enumerate(street.callers[:2]):
        with caller.makefile("rb") as stream:
            assert stream.read() == b'0{"number": "%d"}\n' % number
    street.came.pop().close()
    for caller in street.callers:
        caller.close()
    assert open_files() == before


def test_who_takes_only_a_part_is_left_to_the_loop(street: Street) -> None:
    caller = street.call()
    street.let_in()
    street.came[0].hold({"much": "x" * (8 << 20)})
    street.answer()
    assert not street.came[0].told
    assert 0 < street.came[0].sent < len(street.came[0].answer)
    rest = street.came[0].answer[street.came[0].sent :]
    street.came[0].connection.settimeout(PATIENCE)
    sending = threading.Thread(target=street.came[0].connection.sendall, args=(rest,))
    sending.start()
    found = bytearray()
    while len(found) < len(street.came[0].answer):
        found += caller.recv(1 << 20)
    sending.join()
    assert found == street.came[0].answer


def test_who_went_away_is_left_to_the_loop(street: Street) -> None:
    street.call()
    street.let_in()
    street.callers.pop().close()
    street.came[0].hold({})
    street.answer()
    assert (street.came[0].told, street.came[0].sent) == (False, 0)
    os.fstat(street.came[0].descriptor)  # still open


def test_without_descriptors_nobody_is_let_in(street: Street) -> None:
    street.call(b"whole")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir() if each.exists())
    taken = [os.dup(0) for _ in range(highest + 1 - open_files())]  # no gap below the limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken, default=highest) + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            street.let_in()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)
    street.let_in()
    assert street.came[0].data == b"whole"


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


def test_a_door_that_ended_by_itself_can_be_closed(street: Street) -> None:
    def broken(arrival: Arrival) -> None:
        arrival.close()
        raise RuntimeError("a bug")

    door = Door(street.listener, Nobody(), broken, lambda _: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(street.listener.getsockname())
        caller.shutdown(socket.SHUT_WR)
        with pytest.raises(RuntimeError, match="a bug"):
            door.run()
    number = os.open("/dev/null", os.O_RDONLY)  # most likely has the number that the bell had
    door.close()
    os.close(number)


def test_no_more_are_let_in_than_there_is_room_for(street: Street) -> None:
    for _ in range(CONNECTIONS + 5):
        street.call(b"call")
    came: list[Arrival] = []
    enough = threading.Event()

    def hand_over(arrival: Arrival) -> None:
        came.append(arrival)
        if len(came) in (CONNECTIONS, CONNECTIONS + 5):
            enough.set()

    door = Door(street.listener, Nobody(), hand_over, lambda _: None)
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
