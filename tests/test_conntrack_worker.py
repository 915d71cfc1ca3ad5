"""The order in which purges begin and end, whatever the kernel does; here a table plays it that obeys the test."""

import errno
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from structlog.testing import capture_logs

from felix_py.kernel.conntrack import Conntrack
from felix_py.kernel.conntrack_table import Absent, Forgotten
from felix_py.model import IPAddress

POD, OTHER = ip_address("10.65.0.5"), ip_address("10.65.0.6")
CLEAN = Forgotten(0, {}, {})
WAIT = 5.0


class Slow:
    """A table that does nothing before the test says so, and remembers what it was asked."""

    def __init__(self, *answers: Forgotten | Exception) -> None:
        self.asked: queue.Queue[tuple[set[IPAddress], bool]] = queue.Queue()
        self.go = threading.Semaphore(0)
        self.closed = 0
        self._answers = iter(answers)

    def forget(self, addresses: Iterable[IPAddress], *, kernel_chooses: bool) -> Forgotten:
        self.asked.put((set(addresses), kernel_chooses))
        assert self.go.acquire(timeout=WAIT)
        answer = next(self._answers, CLEAN)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed += 1


class Ready(Slow):
    """A table that answers at once."""

    def forget(self, addresses: Iterable[IPAddress], *, kernel_chooses: bool) -> Forgotten:
        self.go.release()
        return super().forget(addresses, kernel_chooses=kernel_chooses)


Done = queue.Queue[IPAddress]


@contextmanager
def purging(open_table: Callable[[], Slow]) -> Iterator[tuple[Conntrack, Done]]:
    done: Done = queue.Queue()
    conntrack = Conntrack(done.put, open_table=open_table)
    try:
        yield conntrack, done
    finally:
        conntrack.close()
        assert not conntrack._worker.is_alive()


def test_it_is_busy_until_the_kernel_is_done() -> None:
    table = Slow()
    with purging(lambda: table) as (conntrack, done):
        assert not conntrack.busy(POD)
        conntrack.begin(POD)
        assert conntrack.busy(POD)
        assert table.asked.get(timeout=WAIT) == ({POD}, True)
        assert conntrack.busy(POD)
        assert not conntrack.busy(OTHER)
        assert done.empty()
        table.go.release()
        assert done.get(timeout=WAIT) == POD
        assert not conntrack.busy(POD)


def test_nothing_is_busy_any_more_when_it_is_said_to_be_done() -> None:
    busy: queue.Queue[bool] = queue.Queue()
    table = Ready()
    conntrack = Conntrack(lambda address: busy.put(conntrack.busy(address)), open_table=lambda: table)
    conntrack.begin(POD)
    assert busy.get(timeout=WAIT) is False
    conntrack.close()


def test_what_comes_meanwhile_is_done_together_next() -> None:
    table = Slow()
    third = ip_address("fd00::5")
    with purging(lambda: table) as (conntrack, done):
        conntrack.begin(POD)
        table.asked.get(timeout=WAIT)
        conntrack.begin(OTHER)
        conntrack.begin(third)
        table.go.release()
        assert done.get(timeout=WAIT) == POD
        assert table.asked.get(timeout=WAIT) == ({OTHER, third}, True)
        assert conntrack.busy(OTHER)
        assert conntrack.busy(third)
        table.go.release()
        assert {done.get(timeout=WAIT) for _ in range(2)} == {OTHER, third}


def test_begun_again_meanwhile_it_is_done_again_and_said_once() -> None:
    table = Slow()
    with purging(lambda: table) as (conntrack, done):
        conntrack.begin(POD)
        table.asked.get(timeout=WAIT)
        conntrack.begin(POD)
        table.go.release()
        assert table.asked.get(timeout=WAIT) == ({POD}, True), "the first look may have missed what came since"
        assert done.empty()
        assert conntrack.busy(POD)
        table.go.release()
        assert done.get(timeout=WAIT) == POD
    assert done.empty()


def test_a_failure_is_tried_again_with_another_socket_and_without_the_kernels_choice() -> None:
    table = Ready(OSError(errno.ENOBUFS, "No buffer space available"), Forgotten(3, {POD: 3}, {}))
    with capture_logs() as events, purging(lambda: table) as (conntrack, done):
        conntrack.begin(POD)
        done.get(timeout=WAIT)
        assert [table.asked.get_nowait() for _ in range(2)] == [({POD}, True), ({POD}, False)]
        assert (conntrack.entries_removed, conntrack.failures, table.closed) == (3, 0, 1)
    assert events == [
        {"event": "conntrack.purged", "log_level": "debug", "address": "10.65.0.5", "entries": 3},
    ]


def test_only_what_stayed_is_tried_again() -> None:
    stayed = Forgotten(2, {POD: 1, OTHER: 1}, {OTHER: "Device or resource busy"})
    table = Slow(CLEAN, stayed, Forgotten(1, {OTHER: 1}, {}))
    with capture_logs() as events, purging(lambda: table) as (conntrack, done):
        conntrack.begin(ip_address("10.65.0.9"))  # keeps it at work until both others wait
        table.asked.get(timeout=WAIT)
        conntrack.begin(POD)
        conntrack.begin(OTHER)
        for _ in range(3):
            table.go.release()
        assert {done.get(timeout=WAIT) for _ in range(3)} >= {POD, OTHER}
        assert [table.asked.get_nowait() for _ in range(2)] == [({POD, OTHER}, True), ({OTHER}, False)]
        assert (conntrack.entries_removed, conntrack.failures) == (3, 0)
    assert {each["address"]: each["entries"] for each in events} == {"10.65.0.9": 0, "10.65.0.5": 1, "10.65.0.6": 2}


def test_after_three_failures_it_is_said_once_and_the_network_goes_on() -> None:
    table = Ready(*[OSError(errno.EPERM, "Operation not permitted")] * 3)
    with capture_logs() as events, purging(lambda: table) as (conntrack, done):
        conntrack.begin(POD)
        assert done.get(timeout=WAIT) == POD
        assert not conntrack.busy(POD)
        assert conntrack.failures == 1
        assert table.asked.qsize() == 3
        conntrack.begin(POD)
        assert done.get(timeout=WAIT) == POD, "the next one is begun afresh"
        assert conntrack.failures == 1
    assert [(each["event"], each.get("reason")) for each in events] == [
        ("conntrack.refused", "Operation not permitted"),
        ("conntrack.purged", None),
    ]


def test_without_connection_tracking_every_purge_is_done_and_that_is_said_once() -> None:
    def absent() -> Slow:
        raise Absent("this kernel has no netfilter netlink")

    with capture_logs() as events, purging(absent) as (conntrack, done):
        for address in (POD, OTHER):
            conntrack.begin(address)
            assert done.get(timeout=WAIT) == address
        assert (conntrack.entries_removed, conntrack.failures) == (0, 0)
    said = [each for each in events if each["event"] == "conntrack.absent"]
    assert said == [
        {"event": "conntrack.absent", "log_level": "info", "reason": "this kernel has no netfilter netlink"}
    ]
    assert not [each for each in events if each["log_level"] == "warning"]


def test_a_time_out_has_a_reason_too() -> None:
    table = Ready(*[TimeoutError("timed out")] * 3)
    with capture_logs() as events, purging(lambda: table) as (conntrack, done):
        conntrack.begin(POD)
        done.get(timeout=WAIT)
    assert [each["reason"] for each in events] == ["timed out"]


def test_closing_ends_the_worker_and_lets_go_of_the_socket() -> None:
    table = Slow()
    done: Done = queue.Queue()
    conntrack = Conntrack(done.put, open_table=lambda: table)
    conntrack.begin(POD)
    table.asked.get(timeout=WAIT)
    table.go.release()
    done.get(timeout=WAIT)
    conntrack.close()
    conntrack.close()
    assert not conntrack._worker.is_alive()
    assert table.closed == 1
    conntrack.begin(POD)
    assert conntrack.busy(POD), "what begins after the end never ends"
