"""What the door tells, and when: of pods that it has answered, once nobody comes any more or when that matters."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

import pytest

from felix_py.calm import FULL, LONGEST
from felix_py.cni.arrivals import Arrival
from felix_py.cni.coming import Coming, Say
from felix_py.cni.door import TOGETHER, Door
from felix_py.cni.request import Request

PATIENCE = 10.0

Told: TypeAlias = "list[str] | str"
"""Containers of pods that were done, or the one of a call that was handed over."""


class Pods:
    """Makes whoever comes, at once, unless somebody holds it."""

    def __init__(self) -> None:
        self.urgent: set[str] = set()
        self.late: set[str] = set()
        self.now, self.times = 0.0, dict[str, float]()
        self.sizes: list[int] = []
        self.free = threading.Event()
        self.free.set()

    def begin(self, request: Request, _: int | None, say: Say) -> Coming | None:
        return None if request.container_id.startswith("not") else Coming(request, 1500, -1, say, 0.0)

    def make(self, several: Sequence[Coming]) -> None:
        self.sizes.append(len(several))
        assert self.free.wait(PATIENCE)
        for each in several:
            self.now = self.times.get(each.request.container_id, self.now)
            each.is_urgent = each.request.container_id in self.urgent
            if each.request.container_id not in self.late and each.say is not None:
                each.say({})


class House:
    """A door, and who stands before it."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(512)
        self.listener.settimeout(0)
        self.pods, self.heard = Pods(), SimpleQueue[Told]()
        self.door = Door(self.listener, self.pods, self.take, self.done, lambda: self.pods.now)
        self.thread = threading.Thread(target=self.door.run)
        self.callers: list[socket.socket] = []

    def take(self, arrival: Arrival) -> None:
        self.heard.put(bytes(arrival.data).split(b"CNI_CONTAINERID=")[1].split(b"\0")[0].decode())
        arrival.close()

    def done(self, several: list[Coming]) -> None:
        self.heard.put([each.request.container_id for each in several])

    def call(self, container: str, command: str = "ADD") -> socket.socket:
        """Call as felix-cni does."""
        variables = {
            "COMMAND": command,
            "CONTAINERID": container,
            "NETNS": "/proc/1/fd/3",
            "IFNAME": "eth0",
            "PATH": "/opt",
        }
        head = "".join(f"CNI_{name}={value}\0" for name, value in variables.items())
        configuration = {"cniVersion": "1.0.0", "name": "pods", "type": "felix-cni"}
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        caller.settimeout(PATIENCE)
        caller.connect(self.listener.getsockname())
        caller.sendall(f"felix-cni 1\0{head}\0{json.dumps(configuration)}".encode())
        caller.shutdown(socket.SHUT_WR)
        self.callers.append(caller)
        return caller

    def add(self, container: str) -> None:
        """Call, and wait for the answer."""
        assert self.call(container).recv(100) == b"0{}\n"

    def hears(self) -> Told:
        """Return what was told next."""
        return self.heard.get(timeout=PATIENCE)

    def heard_nothing(self) -> bool:
        try:
            self.heard.get_nowait()
        except Empty:
            return True
        return False

    def close(self) -> None:
        self.pods.free.set()
        self.door.close()
        if self.thread.is_alive():
            self.thread.join(PATIENCE)
        for each in (*self.callers, self.listener):
            each.close()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(
        "felix_py.cni.door.QUIET", int(1000 * PATIENCE)
    )  # so that what is told sooner has another reason
    made = House(tmp_path / "door")
    made.thread.start()
    yield made
    made.close()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[House]:
    """Give a house whose door nobody opens yet, and that is soon quiet."""
    made = House(tmp_path / "door")
    yield made
    made.close()


def test_when_nobody_comes_any_more_it_is_told(closed: House) -> None:
    callers = [closed.call(f"c{number}") for number in range(TOGETHER + 3)]
    closed.thread.start()
    assert closed.hears() == [f"c{number}" for number in range(TOGETHER + 3)]
    assert closed.pods.sizes == [TOGETHER, 3]
    assert all(each.recv(100) == b"0{}\n" for each in callers)


def test_nothing_is_told_as_long_as_pods_come(house: House) -> None:
    for number in range(FULL - 1):
        house.add(f"c{number}")
    assert house.heard_nothing()
    house.add("last")
    assert house.hears() == [*(f"c{number}" for number in range(FULL - 1)), "last"]


def test_after_a_second_it_is_told(house: House) -> None:
    """A second from the first of them that was not told, that is."""
    times = {"c1": LONGEST - 0.1, "c2": LONGEST, "c3": 2 * LONGEST - 0.1, "c4": 3 * LONGEST - 0.2, "c5": 3 * LONGEST}
    house.pods.times = times
    for container in ("c0", *times):
        house.add(container)
    assert house.hears() == ["c0", "c1", "c2"]
    assert house.hears() == ["c3", "c4", "c5"]


def test_one_of_which_others_have_to_know_is_told_at_once(house: House) -> None:
    house.pods.urgent = {"c1"}
    house.add("c0")
    assert house.heard_nothing()
    house.add("c1")
    assert house.hears() == ["c0", "c1"]


@pytest.mark.parametrize(
    "other",
    [
        lambda house: house.call("c0", "DEL"),
        lambda house: house.call("not now"),
        lambda house: house.call("c9", "CHECK"),
    ],
    ids=["DEL", "an ADD that has to wait", "CHECK"],
)
def test_whoever_is_handed_over_finds_everything_told(house: House, other: Callable[[House], socket.socket]) -> None:
    house.add("c0")
    assert house.heard_nothing()
    other(house)
    assert house.hears() == ["c0"]
    assert house.hears() in ("c0", "not now", "c9")


def test_one_that_could_not_be_answered_is_handed_over_after_the_others(closed: House) -> None:
    closed.pods.late = {"c1"}
    for number in range(3):
        closed.call(f"c{number}")
    closed.thread.start()
    assert closed.hears() == ["c0", "c2"]
    assert closed.hears() == "c1"


def test_what_was_not_told_is_told_at_the_end(house: House) -> None:
    house.add("c0")
    assert house.heard_nothing()
    house.door.close()
    house.thread.join(PATIENCE)
    assert house.hears() == ["c0"]


def test_whoever_comes_meanwhile_is_made_together(house: House) -> None:
    house.pods.free.clear()
    house.call("c0")
    callers = [house.call(f"c{number}") for number in range(1, 6)]
    house.pods.free.set()
    assert all(each.recv(100) == b"0{}\n" for each in callers)
    assert sum(house.pods.sizes) == 6
    assert max(house.pods.sizes) > 1
