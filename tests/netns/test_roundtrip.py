"""Round trips to the kernel: the compiled library and Python do the very same, also where something fails."""

import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from spaces import Space

from felix_py.kernel import links, roundtrip
from felix_py.kernel.links import Change, LinkRefused
from felix_py.kernel.messages import ACK, ERROR, RTM_NEWLINK, messages
from felix_py.kernel.roundtrip import FUNCTIONS, Broken, Library, Step, exchange, exchange_inside

pytestmark = pytest.mark.netns

LOOPBACK = 1

UNKNOWN = Change("nothing that the kernel knows", 4000, ACK, bytes(16))
"""A request that is refused, as is one of a later kernel."""


@pytest.fixture(params=["compiled", "in Python"])
def functions(request: pytest.FixtureRequest) -> Library | None:
    if request.param == "in Python":
        return None
    assert FUNCTIONS is not None, "`make setup` compiles felix_py/kernel/exchange.c, and needs a C compiler"
    return FUNCTIONS


@pytest.fixture
def here() -> Iterator[Space]:
    made = Space()
    yield made
    made.close()


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


def own(space: Space) -> int:
    return space.do(os.stat, "/proc/thread-self/ns/net").st_ino


def look(*changes: Change, interface: str | int = LOOPBACK) -> tuple[bytes, int]:
    requests = links.with_look(changes, interface)
    return links.packed(requests), len(requests) - 1


def numbers(answers: bytes) -> list[tuple[int, int]]:
    """Return number and kind of each answer."""
    return [(number, kind) for kind, _, number, _, _ in messages(answers)]


def test_what_comes_before_the_answer_comes_with_it(here: Space, functions: Library | None) -> None:
    asked, last = look(links.up(LOOPBACK, "lo"), UNKNOWN, links.up(99, "nobody"))

    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            return exchange(sock, asked, last, functions)

    assert numbers(here.do(asking)) == [(1, ERROR), (2, ERROR), (3, RTM_NEWLINK)]


def test_many_refusals_are_all_there(here: Space, functions: Library | None) -> None:
    asked, last = look(*[links.up(99, "nobody")] * 60)

    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            return exchange(sock, asked, last, functions)

    assert numbers(here.do(asking)) == [*((each, ERROR) for each in range(60)), (60, RTM_NEWLINK)]


def test_more_than_there_is_room_for_is_an_error_and_no_answer(here: Space) -> None:
    asked, last = look(*[UNKNOWN] * 2000)

    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE: the kernel has room for all of it
            return exchange(sock, asked, last, FUNCTIONS)

    with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
        here.do(asking)


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(here: Space, functions: Library | None) -> None:
    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, roundtrip.TIMEVAL.pack(0, 10_000))
            return exchange(sock, links.packed([links.up(LOOPBACK, "lo")]), 0, functions)  # nobody asks for an answer

    with pytest.raises(BlockingIOError):
        here.do(asking)


def test_inside_another_namespace(here: Space, there: Space, namespace: int, functions: Library | None) -> None:
    before, forwarding = own(here), "/proc/sys/net/ipv4/ip_forward"
    here.parameter("ipv4/ip_forward", "0")
    there.parameter("ipv4/ip_forward", "0")
    there.ip("link set lo down")
    asked, last = look(links.up(LOOPBACK, "lo"))

    def asking() -> tuple[bytes, socket.socket]:
        return exchange_inside(
            namespace, {"/proc/sys/net/ipv4/no-such": "1"}, {forwarding: "1"}, asked, last, functions
        )

    answers, sock = here.do(asking)
    with sock:
        assert numbers(answers) == [(last, RTM_NEWLINK)]
        assert "UP" in there.run("ip", "link", "show", "lo")
        assert links.carry_out_and_look(sock, [], "lo").running, "the socket is one of that namespace"
        assert not sock.get_inheritable()
    assert (here.parameter("ipv4/ip_forward"), there.parameter("ipv4/ip_forward")) == ("0", "1")
    assert own(here) == before


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
    with pytest.raises(Broken) as broken:
        here.do(exchange_inside, namespace, here_files, there_files, *asked, functions)
    assert (broken.value.step, broken.value.error.errno) == (step, code)
    assert broken.value.path == [*here_files, *there_files][-1]
    assert own(here) == before


def test_a_namespace_that_is_none(here: Space, functions: Library | None) -> None:
    with open("/dev/null") as file, pytest.raises(Broken) as broken:  # noqa: PTH123 - for its descriptor
        here.do(exchange_inside, file.fileno(), {}, {}, *look(), functions)
    assert (broken.value.step, broken.value.error.errno) == (Step.ENTER, errno.EINVAL)


def test_no_descriptor_is_left_after_a_failure(here: Space, namespace: int, functions: Library | None) -> None:
    def open_files() -> set[str]:
        return {each.name for each in Path("/proc/self/fd").iterdir()}

    here.do(exchange_inside, namespace, {}, {}, *look(), functions)[1].close()  # the way home stays open
    before = open_files()
    with pytest.raises(Broken) as broken:
        here.do(exchange_inside, namespace, {}, {}, *look(*[UNKNOWN] * 2000), functions)
    assert (broken.value.step, broken.value.error.errno) == (Step.EXCHANGE, errno.ENOBUFS)
    assert len(open_files()) == len(before)


def test_a_refused_change_inside_says_which(here: Space, namespace: int) -> None:
    requests = links.with_look([links.up(LOOPBACK, "lo"), links.up(99, "eth7")], LOOPBACK)
    answers, sock = here.do(exchange_inside, namespace, {}, {}, links.packed(requests), len(requests) - 1)
    sock.close()
    with pytest.raises(LinkRefused, match="eth7 up was refused: No such device"):
        links.seen(requests, answers)


def test_signals_disturb_nothing(here: Space, namespace: int, functions: Library | None) -> None:
    """A signal that arrives amid a call is heard after it; the call comes to its end."""
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        thread_id, disturbing, asked = (
            here.do(threading.get_ident),
            threading.Event(),
            look(*[links.up(LOOPBACK, "lo")] * 20),
        )

        def disturb() -> None:
            while not disturbing.is_set():
                signal.pthread_kill(thread_id, signal.SIGUSR1)

        thread = threading.Thread(target=disturb)
        thread.start()
        for _ in range(50):
            answers, sock = here.do(exchange_inside, namespace, {}, {}, *asked, functions)
            sock.close()
            assert numbers(answers)[-1] == (20, RTM_NEWLINK)
        disturbing.set()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard


def test_without_the_library_there_are_no_functions(tmp_path: Path) -> None:
    assert roundtrip.library(tmp_path / "exchange.so") is None
