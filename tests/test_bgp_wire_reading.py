"""How the child finds UPDATEs in what it has read, and hands everything else to ExaBGP."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from exabgp.reactor.network.error import LostConnection, NotConnected
from hypothesis import given
from hypothesis import strategies as st

from bgp import exabgp_wire

MARKER = b"\xff" * 16
UPDATE = MARKER + b"\0\x17\2\0\0\0\0"
LONGER = MARKER + b"\0\x1c\2\0\5\x1a\x0a\x41\1\0\0\0"
KEEPALIVE = MARKER + b"\0\x13\4"
LONGEST = 4096


@pytest.mark.parametrize(
    ("box", "count", "end"),
    [
        pytest.param(b"", 0, 0, id="nothing"),
        pytest.param(UPDATE, 1, 23, id="one"),
        pytest.param(UPDATE + LONGER + UPDATE, 3, 74, id="three"),
        pytest.param(UPDATE + LONGER[:-1], 1, 23, id="one, and a part"),
        pytest.param(UPDATE + LONGER[:18], 1, 23, id="one, and a part of a header"),
        pytest.param(UPDATE + KEEPALIVE + UPDATE, 1, 23, id="those before something else"),
        pytest.param(KEEPALIVE + UPDATE, 0, 0, id="something else first"),
        pytest.param(UPDATE + b"\xfe" + UPDATE[1:], 1, 23, id="not after a wrong marker"),
        pytest.param(MARKER + b"\0\x16\2\0\0\0", 0, 0, id="none that is too short"),
        pytest.param(MARKER + b"\x10\1\2" + bytes(4078), 0, 0, id="none that is too long"),
    ],
)
def test_whole_updates_at_the_front(box: bytes, count: int, end: int) -> None:
    assert exabgp_wire.updates(bytearray(box), LONGEST) == (count, end)


def test_a_table_is_handed_on_in_runs() -> None:
    count, end = exabgp_wire.updates(bytearray(LONGER * 2000), LONGEST)
    assert end == count * len(LONGER)
    assert exabgp_wire.RUN <= end < exabgp_wire.RUN + len(LONGER)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(KEEPALIVE, True, id="a message"),
        pytest.param(LONGER[:-1], False, id="a part of one"),
        pytest.param(LONGER[:18], False, id="a part of a header"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n\r\n", True, id="no BGP, which ExaBGP has to say"),
        pytest.param(MARKER + b"\xff\xff\4", True, id="a length that cannot be, the same"),
    ],
)
def test_what_can_be_understood_without_reading_more(box: bytes, expected: bool) -> None:  # noqa: FBT001 - a table
    assert exabgp_wire.whole(SimpleNamespace(inbox=bytearray(box), msg_size=LONGEST)) is expected


def connection(end: socket.socket) -> Any:
    end.setblocking(False)  # noqa: FBT003 - the standard library's signature
    made = SimpleNamespace(io=end, msg_size=LONGEST)

    def close() -> None:
        made.io = None

    made.close = close
    return made


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_exabgp_gets_as_many_bytes_as_it_asks_for(cuts: list[int]) -> None:
    near, far = socket.socketpair()
    with near, far:
        reading = connection(near)
        data = (UPDATE + LONGER + KEEPALIVE)[: sum(cuts)]
        reader = exabgp_wire.read(reading, len(data))
        sent = 0
        for cut in cuts:
            assert sent >= len(data) or next(reader) == b""
            far.sendall(data[sent : sent + cut])
            sent += cut
        assert next(reader) == data
        assert exabgp_wire.inbox(reading) == b""


def test_the_end_of_a_connection_is_told_after_what_came_before_it() -> None:
    near, far = socket.socketpair()
    with near:
        reading = connection(near)
        far.sendall(UPDATE)
        far.close()
        assert exabgp_wire.fill(reading)
        assert exabgp_wire.updates(exabgp_wire.inbox(reading), LONGEST) == (1, 23)
        with pytest.raises(LostConnection):
            exabgp_wire.fill(reading)
        with pytest.raises(NotConnected):
            exabgp_wire.fill(reading)
