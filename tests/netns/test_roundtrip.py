"""Round trips to the kernel: the compiled library and Python do the very same, also where something fails."""

import errno
import os
import socket

import pytest
from exchanges import LOOPBACK, UNKNOWN, look, numbers
from spaces import Space

from felix_py.kernel import link_changes, links, roundtrip
from felix_py.kernel.messages import ERROR, RTM_NEWLINK
from felix_py.kernel.netlink_socket import subscribe
from felix_py.kernel.roundtrip import FUNCTIONS, Library, exchange, received

pytestmark = pytest.mark.netns

LINK_GROUP = 1  # RTNLGRP_LINK


def test_what_comes_before_the_answer_comes_with_it(here: Space, functions: Library | None) -> None:
    asked, last = look(link_changes.up(LOOPBACK, "lo"), UNKNOWN, link_changes.up(99, "nobody"))

    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            return exchange(sock, asked, last, functions)

    assert numbers(here.do(asking)) == [(1, ERROR), (2, ERROR), (3, RTM_NEWLINK)]


def test_many_refusals_are_all_there(here: Space, functions: Library | None) -> None:
    asked, last = look(*[link_changes.up(99, "nobody")] * 60)

    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            return exchange(sock, asked, last, functions)

    assert numbers(here.do(asking)) == [*((each, ERROR) for each in range(60)), (60, RTM_NEWLINK)]


def test_more_than_there_is_room_for_is_an_error_and_no_answer(here: Space) -> None:
    asked, last = look(*[UNKNOWN] * 5000)

    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE: the kernel has room for all of it
            return exchange(sock, asked, last, FUNCTIONS)

    with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
        here.do(asking)


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(here: Space, functions: Library | None) -> None:
    def asking() -> bytes:
        with roundtrip.open_socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, roundtrip.TIMEVAL.pack(0, 10_000))
            return exchange(
                sock, links.packed([link_changes.up(LOOPBACK, "lo")]), 0, functions
            )  # nobody asks for an answer

    with pytest.raises(BlockingIOError):
        here.do(asking)


def events_of(space: Space, count: int, *, room: int = 1 << 20) -> socket.socket:
    """Return a socket that has heard of so many changes, as far as it has room for them."""

    def heard() -> socket.socket:
        listening, asking = roundtrip.open_socket(), roundtrip.open_socket()
        listening.setsockopt(socket.SOL_SOCKET, 33, room)  # SO_RCVBUFFORCE
        listening.bind((0, 0))
        subscribe(listening, LINK_GROUP)
        with asking:
            for number in range(count):
                links.carry_out(asking, [link_changes.resize(LOOPBACK, "lo", 60_000 + number)])
        return listening

    return space.do(heard)


def test_datagrams_that_are_there_are_received_together(here: Space, functions: Library | None) -> None:
    with events_of(here, 7) as sock:
        data, code = received(sock, 5, functions)
        assert (len(numbers(data)), code) == (5, 0)
        data, code = received(sock, 5, functions)
        assert (len(numbers(data)), code) == (2, errno.EAGAIN)
        assert received(sock, 5, functions) == (b"", errno.EAGAIN)
        assert received(sock, 0, functions) == (b"", 0)


def test_more_than_there_is_room_for_is_received_in_parts(here: Space, functions: Library | None) -> None:
    count, code, parts = 0, 0, 0
    with events_of(here, 400, room=1 << 22) as sock:
        while code == 0:
            data, code = received(sock, 1000, functions)
            count, parts = count + len(numbers(data)), parts + 1
    assert (count, code) == (400, errno.EAGAIN)
    assert parts > 1 or functions is None


def test_a_queue_that_ran_over_says_so_once(here: Space, functions: Library | None) -> None:
    with events_of(here, 100, room=4096) as sock:
        found = [received(sock, 1000, functions) for _ in range(3)]
    assert [code for _, code in found] == [errno.ENOBUFS, errno.EAGAIN, errno.EAGAIN]
    assert 0 < len(numbers(found[1][0])) < 100, "what had room is there"


def test_a_socket_that_is_closed_brings_nothing(functions: Library | None) -> None:
    sock = roundtrip.open_socket()
    sock.close()
    assert received(sock, 5, functions) == (b"", errno.EBADF)
