"""What the kernel may say, good and bad, taken as bytes: parts of a dump, events, interfaces and addresses."""

import errno
import struct
from contextlib import suppress

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel import dump, link_codec, watch
from felix_py.kernel.dump import Answers
from felix_py.kernel.messages import attribute
from felix_py.kernel.objects import Link
from felix_py.kernel.wire import (
    AddressEvent,
    LinkEvent,
    Mode,
    ParameterEvent,
    ProgramEvent,
    RouteEvent,
    Verb,
    WireBroken,
)

ROUTE, DONE, ERROR, INTERRUPTED = 24, 3, 2, 0x10


def message(body: bytes, kind: int = ROUTE, *, sequence: int = 7, flags: int = 2, port: int = 99) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, port) + body + bytes(-len(body) & 3)


def done(code: int = 0, *, flags: int = 2, sequence: int = 7) -> bytes:
    return message(struct.pack("=i", -code), DONE, flags=flags, sequence=sequence)


def gathered(*parts: bytes) -> Answers:
    answers = Answers(ROUTE, 7)
    for part in parts:
        answers.take(part)
    return answers


@pytest.mark.parametrize(
    "bodies",
    [
        pytest.param([b"a" * 44] * 50, id="equal lengths"),
        pytest.param([b"a" * 44, b"b" * 28, b"c" * 44, b"d" * 52] * 9, id="several lengths"),
        pytest.param(
            [b"a" * 44] * 5 + [b"b" * 104] + [b"c" * 44] * 5, id="one that is as long as two and their headers"
        ),
        pytest.param([b"a" * 13, b"b" * 14, b"c" * 15, b"d" * 13], id="lengths that need padding"),
        pytest.param([b""], id="nothing after the header"),
    ],
)
def test_bodies_come_in_order_however_they_are_dealt_into_parts(bodies: list[bytes]) -> None:
    whole = [message(body) for body in bodies]
    for size in (1, 3, len(whole)):
        parts = [b"".join(whole[start : start + size]) for start in range(0, len(whole), size)]
        answers = gathered(*parts, done())
        assert answers.bodies == bodies
        assert answers.complete


@given(st.lists(st.sampled_from([12, 28, 44, 45, 104]), max_size=30), st.integers(1, 9))
def test_any_mixture_of_lengths_is_cut_where_it_should_be(lengths: list[int], size: int) -> None:
    bodies = [bytes([number]) * length for number, length in enumerate(lengths)]
    whole = [message(body) for body in bodies]
    parts = [b"".join(whole[start : start + size]) for start in range(0, len(whole), size)]
    assert gathered(*parts, done()).bodies == bodies


def test_answers_to_another_question_are_passed_over() -> None:
    answers = gathered(
        message(b"a" * 44) + message(b"x" * 44, sequence=6) + message(b"b" * 44),
        message(b"y" * 44, sequence=6) * 3,
        done(sequence=6),
    )
    assert answers.bodies == [b"a" * 44, b"b" * 44]
    assert not answers.complete


def test_messages_of_another_kind_are_passed_over() -> None:
    assert gathered(message(b"a" * 44) + message(b"x" * 44, 16) + message(b"b" * 44) + done()).bodies == [
        b"a" * 44,
        b"b" * 44,
    ]


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(message(b"a" * 44) * 3 + message(b"a" * 44, flags=2 | INTERRUPTED), id="in the middle"),
        pytest.param(message(b"a" * 44, flags=2 | INTERRUPTED) * 3, id="in all of a part"),
        pytest.param(message(b"a" * 44) + done(flags=2 | INTERRUPTED), id="in the last word"),
    ],
)
def test_a_table_that_changed_is_to_be_read_again(part: bytes) -> None:
    with pytest.raises(dump._Again):
        gathered(message(b"a" * 44), part)


@pytest.mark.parametrize("kind", [DONE, ERROR])
def test_the_last_word_brings_its_errno(kind: int) -> None:
    answers = gathered(message(struct.pack("=i", -errno.ENOENT) + bytes(16), kind))
    assert (answers.complete, answers.code, answers.bodies) == (True, errno.ENOENT, [])


@pytest.mark.parametrize("length", [0, 15, 61, 4000])
def test_a_length_that_cannot_be_is_a_broken_wire(length: int) -> None:
    data = struct.pack("=I", length) + message(b"a" * 44)[4:]
    with pytest.raises(WireBroken, match=f"^the kernel sent a message of {length} bytes where 60 are left$"):
        gathered(data)


@examples(500)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_rubbish_in_a_dump_ends_it_or_is_passed_over(data: bytes, copies: int) -> None:
    with suppress(WireBroken, dump._Again):
        gathered(message(b"a" * 44) * copies + data)


def link(family: int = 0, flags: int = 0x1043, name: bytes = b"eth0\0", mtu: bytes = struct.pack("=I", 1500)) -> bytes:
    return struct.pack("=BxHiII", family, 1, 3, flags, 0) + attribute(3, name) + attribute(4, mtu)


ETH0 = Link("eth0", 3, 1500, up=True, running=True)


@pytest.mark.parametrize(
    ("kind", "flags", "body", "event"),
    [
        (24, 0x600, b"\x02" * 12, RouteEvent(Verb.NEW_ROUTE, Mode.CREATE | Mode.EXCLUSIVE, 99, b"\x02" * 12)),
        (25, 0, b"\x02" * 12, RouteEvent(Verb.DELETE_ROUTE, Mode.NONE, 99, b"\x02" * 12)),
        (16, 0, link(), LinkEvent(ETH0)),
        (17, 0, link(), LinkEvent(ETH0, gone=True)),
        (80, 0, b"\x02\0\0\0" + attribute(1, struct.pack("=i", -2)), ParameterEvent(-2)),
        (20, 0, struct.pack("=BBBBI", 2, 24, 0, 0, 3) + attribute(2, b"\x0a\1\2\3"), AddressEvent(3, "10.1.2.3/24")),
        (37, 0, struct.pack("=BxxxIIII", 0, 3, 0xFFFF0000, 0xFFFFFFF1, 0), ProgramEvent(3)),
        (45, 0, struct.pack("=BxxxIIII", 0, 3, 0, 0xFFFFFFF2, 0), ProgramEvent(3)),
        pytest.param(45, 0, struct.pack("=BxxxI", 0, 3), None, id="a filter cut short"),
        pytest.param(17, 0, link(family=7), None, id="an interface leaves a bridge: it is not gone"),
        pytest.param(16, 0, link()[:16], None, id="a wireless event has no name"),
        pytest.param(16, 0, link(mtu=b""), None, id="an interface without an MTU"),
        pytest.param(20, 0, struct.pack("=BBBBI", 2, 24, 0, 0, 3), None, id="an address without the address"),
        pytest.param(24, 0, b"\x02" * 11, None, id="a route cut short"),
        pytest.param(104, 0, b"\x02" * 7, None, id="a next hop cut short"),
        pytest.param(80, 0, b"\x02", None, id="a parameter of nothing"),
        pytest.param(28, 0, b"\x02" * 40, None, id="a message that nobody asked for"),
    ],
)
def test_events_are_what_their_bytes_say(kind: int, flags: int, body: bytes, event: object) -> None:
    assert watch.decode(kind, flags, 99, body) == event


@examples(500)
@given(st.sampled_from([16, 17, 20, 21, 24, 25, 80, 104, 105, 3]), st.integers(0, 0xFFFF), st.binary(max_size=120))
def test_no_event_is_too_malformed_to_be_passed_over(kind: int, flags: int, body: bytes) -> None:
    watch.decode(kind, flags, 1, body)


@given(st.data())
def test_interfaces_damaged_anywhere_are_decoded_or_passed_over(data: st.DataObject) -> None:
    body = bytearray(link())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    found = link_codec.decode_link(bytes(body[: data.draw(st.integers(0, len(body)))]))
    assert found is None or found.name


def test_the_filter_names_ports_in_the_order_in_which_a_filter_loads_them() -> None:
    operands = [operand for code, _, _, operand in watch.without(0x01020304) if code == watch.IF_EQUAL]
    assert struct.pack(">I", operands[-1]) == struct.pack("=I", 0x01020304)
