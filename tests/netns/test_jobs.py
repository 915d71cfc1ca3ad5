"""Jobs at the kernel: the compiled library and Python do the very same, also where something fails."""

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exchanges import LOOPBACK, UNKNOWN, look, numbers
from spaces import Space

from felix_py.cni import pod_namespace
from felix_py.cni.pod_namespace import Place
from felix_py.kernel import jobs, link_changes, links, roundtrip
from felix_py.kernel.jobs import Job, Step
from felix_py.kernel.links import LinkRefused
from felix_py.kernel.messages import ERROR, HEADER, RTM_NEWLINK
from felix_py.kernel.roundtrip import FUNCTIONS, Library

pytestmark = pytest.mark.netns

CATCHES_UP = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 8)
"""The kernel takes note of a carrier when it is asked for it, and not only when its work queue comes to it."""


@pytest.fixture
def there() -> Iterator[Space]:
    made = Space()
    yield made
    made.close()


@pytest.fixture
def namespace(there: Space) -> Iterator[int]:
    descriptor = os.open(there.path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def sock(here: Space) -> Iterator[socket.socket]:
    made = here.do(roundtrip.open_socket)
    yield made
    made.close()


def own(space: Space) -> int:
    return space.do(os.stat, "/proc/thread-self/ns/net").st_ino


def open_files() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def test_inside_another_namespace(here: Space, there: Space, namespace: int, functions: Library | None) -> None:
    before, forwarding = own(here), "/proc/sys/net/ipv4/ip_forward"
    here.parameter("ipv4/ip_forward", "0")
    there.parameter("ipv4/ip_forward", "0")
    there.ip("link set lo down")
    asked, last = look(link_changes.up(LOOPBACK, "lo"))
    job = Job(asked, last, None, namespace, {"/proc/sys/net/ipv4/no-such": "1"}, {forwarding: "1"})
    (done,) = here.do(jobs.do, [job], functions)
    assert done.broken is None
    assert numbers(done.answers) == [(last, RTM_NEWLINK)]
    assert "UP" in there.run("ip", "link", "show", "lo")
    assert (here.parameter("ipv4/ip_forward"), there.parameter("ipv4/ip_forward")) == ("0", "1")
    assert own(here) == before


def test_each_has_its_own_answers(here: Space, sock: socket.socket, namespace: int, functions: Library | None) -> None:
    first, second = look(link_changes.up(99, "nobody")), look()
    many = [Job(*first, sock), Job(*second, None, namespace), Job(*second, sock), Job(*second, None, namespace)]
    done = here.do(jobs.do, many * 8, functions)
    for number, each in enumerate(done):
        assert each.broken is None
        assert [number for number, _ in numbers(each.answers)] == ([0, 1] if number % 4 == 0 else [0])
        assert each.is_well == (number % 4 != 0)


def test_devices_are_looked_at_when_all_jobs_are_done(
    here: Space, there: Space, sock: socket.socket, namespace: int, functions: Library | None
) -> None:
    here.ip(f"link add near index 7 type veth peer name far index 8 netns {there.path}")
    (before,) = here.do(jobs.do, [Job(*look(), sock, devices=("near", "nobody", "n" * 20))], functions)
    assert (before.is_well, before.idle) == (True, 3)
    ups = [
        Job(*look(link_changes.up(7, "near")), sock, devices=("near",)),
        Job(*look(link_changes.up(8, "far")), None, namespace, devices=("far", "nobody")),
    ]
    deadline = time.monotonic() + 5
    while (done := [each.idle for each in here.do(jobs.do, ups, functions)]) != [0, 1]:
        assert not CATCHES_UP, done
        assert time.monotonic() < deadline, done


def test_no_answer_is_read_that_came_too_late(
    here: Space, sock: socket.socket, namespace: int, functions: Library | None
) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, roundtrip.TIMEVAL.pack(0, 10_000))
    unanswered = links.packed([link_changes.up(LOOPBACK, "lo")]), 0  # nobody asks for an answer
    done = here.do(jobs.do, [Job(*unanswered, sock), Job(*look(), sock), Job(*look(), None, namespace)], functions)
    assert done[0].broken is not None
    assert done[0].broken.error.errno == errno.EAGAIN
    assert [each.is_in_vain for each in done] == [False, True, False]
    assert done[2].is_well, "it is another socket"
    for each in done[:2]:
        (refused,) = links.seen_each([links.with_look([], LOOPBACK)], each)
        assert "the kernel did not answer within" in str(refused)


@pytest.mark.parametrize("answer", [HEADER.pack(36, ERROR, 0, 0, 0), HEADER.pack(8, RTM_NEWLINK, 0, 0, 0) + bytes(16)])
def test_an_answer_that_is_cut_short_is_not_taken_for_a_good_one(
    here: Space, functions: Library | None, answer: bytes
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # in the kernel's place, which sends none such
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, roundtrip.TIMEVAL.pack(0, 10_000))  # Python reads on
        theirs.send(answer)
        (done,) = here.do(jobs.do, [Job(*look(), ours)], functions)
    assert not done.is_well
    (refused,) = links.seen_each([links.with_look([], LOOPBACK)], done)
    assert any(words in str(refused) for words in ("the kernel's answer is cut short", "did not answer within"))


@pytest.mark.parametrize(
    ("here_files", "there_files", "step", "code"),
    [
        ({"/proc/sys/net/ipv4/ip_forward": "x"}, {}, Step.HERE, errno.EINVAL),
        (
            {},
            {"/proc/sys/net/ipv4/ip_default_ttl": "64", "/proc/sys/net/ipv4/ip_forward": "x"},
            Step.THERE,
            errno.EINVAL,
        ),
        ({}, {"/proc/self": "x"}, Step.THERE, errno.EISDIR),
    ],
)
def test_a_file_that_cannot_be_written(
    here: Space,
    namespace: int,
    functions: Library | None,
    here_files: dict[str, str],
    there_files: dict[str, str],
    step: Step,
    code: int,
) -> None:
    before, asked = own(here), look()
    (done,) = here.do(jobs.do, [Job(*asked, None, namespace, here_files, there_files)], functions)
    assert done.broken is not None
    assert (done.broken.step, done.broken.error.errno) == (step, code)
    assert done.broken.path == [*here_files, *there_files][-1]
    assert own(here) == before


def test_a_namespace_that_is_none(here: Space, functions: Library | None) -> None:
    with open("/dev/null") as file:  # noqa: PTH123 - for its descriptor
        (done,) = here.do(jobs.do, [Job(*look(), None, file.fileno())], functions)
    assert done.broken is not None
    assert (done.broken.step, done.broken.error.errno, done.broken.path) == (Step.ENTER, errno.EINVAL, "")


def test_no_descriptor_is_left(here: Space, namespace: int, functions: Library | None) -> None:
    here.do(jobs.do, [Job(*look(), None, namespace)], functions)  # the way home stays open
    before = open_files()
    fine, refused = here.do(
        jobs.do, [Job(*look(), None, namespace), Job(*look(*[UNKNOWN] * 4000), None, namespace)], functions
    )
    assert fine.is_well
    assert refused.broken is not None
    assert (refused.broken.step, refused.broken.error.errno) == (Step.EXCHANGE, errno.ENOBUFS)
    assert len(open_files()) == len(before)


@pytest.fixture
def forwarding(there: Space) -> Iterator[str]:
    there.parameter("ipv4/ip_forward", "1")
    yield "/proc/sys/net/ipv4/ip_forward"
    assert there.parameter("ipv4/ip_forward") == "0", "it was set"


def test_parameters_of_many_namespaces_are_set_in_few_file_systems(
    here: Space, namespace: int, forwarding: str, functions: Library | None
) -> None:
    job = Job(*look(), None, namespace, {}, {forwarding: "0"})
    here.do(jobs.do, [job], functions)
    before = len(open_files())
    for _ in range(jobs.PODS // 10):
        done = here.do(jobs.do, [job] * 30, functions)
        assert all(each.is_well for each in done)
        assert len(open_files()) == before, "one at a time"


def test_where_no_file_system_may_be_mounted_parameters_are_set_all_the_same(
    here: Space, namespace: int, forwarding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if FUNCTIONS is None:
        pytest.skip("the library was not built: apt-get install gcc, then install felix-py again")
    tried = []
    monkeypatch.setattr(FUNCTIONS, "own_procfs", lambda: tried.append(1) or -errno.EPERM)
    for _ in range(3):
        (done,) = here.do(jobs.do, [Job(*look(), None, namespace, {}, {forwarding: "0"})])
        assert done.is_well
    assert tried == [1], "not for each pod"


def test_a_procfs_of_our_own_is_nobody_elses() -> None:
    if FUNCTIONS is None:
        pytest.skip("the library was not built: apt-get install gcc, then install felix-py again")
    before = Path("/proc/self/mounts").read_text()
    descriptor = FUNCTIONS.own_procfs()
    assert descriptor >= 0, os.strerror(-descriptor)
    try:
        assert not os.get_inheritable(descriptor)
        assert Path("/proc/self/mounts").read_text() == before
        assert os.stat("self", dir_fd=descriptor).st_dev != Path("/proc/self").stat().st_dev, "lists of its own"
    finally:
        os.close(descriptor)


def test_a_refused_change_inside_says_which(here: Space, namespace: int) -> None:
    requests = links.acknowledged([link_changes.up(LOOPBACK, "lo"), link_changes.up(99, "eth7")])
    job = pod_namespace.job(namespace, requests, {}, {})
    (done,) = here.do(jobs.do, [job])
    with pytest.raises(LinkRefused, match="eth7 up was refused: No such device"):
        pod_namespace.require_done(job, requests, done)


@pytest.mark.parametrize("refused", [(), (1,), (0, 2), (0, 1, 2)], ids=str)
def test_of_parts_sent_together_each_has_its_own_answer(
    here: Space, sock: socket.socket, functions: Library | None, refused: tuple[int, ...]
) -> None:
    nobody, fine = link_changes.up(99, "nobody"), link_changes.up(LOOPBACK, "lo")
    parts = [links.with_look([fine, nobody, fine] if part in refused else [fine], LOOPBACK) for part in range(3)]
    (done,) = here.do(jobs.do, [links.joined(sock, parts)], functions)
    seen = links.seen_each(parts, done)
    for part, end in enumerate(seen):
        if part in refused:
            assert isinstance(end, LinkRefused)
            assert (str(end), end.code) == ("nobody up was refused: No such device", errno.ENODEV)
        else:
            assert isinstance(end, links.End)
            assert (end.index, end.running) == (LOOPBACK, True)


def test_of_parts_sent_together_one_may_look_for_nobody(
    here: Space, sock: socket.socket, functions: Library | None
) -> None:
    parts = [links.with_look([], interface) for interface in (LOOPBACK, 99, LOOPBACK)]
    (done,) = here.do(jobs.do, [links.joined(sock, parts)], functions)
    assert [type(each) for each in links.seen_each(parts, done)] == [links.End, LinkRefused, links.End]


def test_signals_disturb_nothing(here: Space, namespace: int, functions: Library | None) -> None:
    """A signal that arrives amid a call is heard after it; the call comes to its end."""
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        thread_id, disturbing, asked = (
            here.do(threading.get_ident),
            threading.Event(),
            look(*[link_changes.up(LOOPBACK, "lo")] * 20),
        )

        def disturb() -> None:
            while not disturbing.is_set():
                signal.pthread_kill(thread_id, signal.SIGUSR1)

        thread = threading.Thread(target=disturb)
        thread.start()
        for _ in range(50):
            done = here.do(jobs.do, [Job(*asked, None, namespace)] * 2, functions)
            assert [numbers(each.answers)[-1] for each in done] == [(20, RTM_NEWLINK)] * 2
        disturbing.set()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard


def test_what_a_descriptor_is(namespace: int, functions: Library | None) -> None:
    assert pod_namespace.judge(namespace, functions) is Place.ANOTHER
    for path, place in (("/proc/self/ns/net", Place.OWN), ("/proc/self/ns/mnt", Place.NONE), ("/dev/null", Place.NONE)):
        with open(path) as file:  # noqa: PTH123 - for its descriptor
            assert pod_namespace.judge(file.fileno(), functions) is place, path
