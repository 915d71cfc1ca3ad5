"""The frame of netlink messages: walked whatever it holds, and refusals in the kernel's own words."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel.messages import (
    ACK_TLVS,
    CAPPED,
    HEADER,
    attribute,
    attributes,
    messages,
    pieces,
    refusal,
)


def message(kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 0, 7, 99) + body + bytes(-len(body) & 3)


def test_an_attribute_is_padded_to_four_bytes() -> None:
    assert attribute(15, b"\xfe\0\0\0").hex() == "08000f00fe000000"
    assert attribute(20, b"\x01").hex() == "0500140001000000"


content = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=9)), max_size=6)


@given(content)
def test_attributes_are_read_as_written(wanted: list[tuple[int, bytes]]) -> None:
    body = bytes(12) + b"".join(attribute(*each) for each in wanted)
    assert list(attributes(body, 12)) == wanted
    assert list(pieces(body, 12)) == [(kind, attribute(kind, payload)) for kind, payload in wanted]


@given(st.binary(max_size=60))
def test_pieces_lose_no_byte(body: bytes) -> None:
    assert b"".join(piece for _, piece in pieces(body, 0)) == body


def test_flags_of_an_attribute_are_no_part_of_its_kind() -> None:
    assert list(attributes(bytes.fromhex("04000c80"), 0)) == [(12, b"")]  # NLA_F_NESTED


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_a_broken_length_ends_the_walk(length: int) -> None:
    broken = struct.pack("=HHI", length, 5, 0)
    assert list(attributes(attribute(1, b"") + broken, 0)) == [(1, b"")]
    assert list(pieces(attribute(1, b"") + broken, 0)) == [(1, attribute(1, b"")), (-1, broken)]


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=9)), max_size=4))
def test_messages_are_read_as_written(wanted: list[tuple[int, bytes]]) -> None:
    data = b"".join(message(*each) for each in wanted)
    assert list(messages(data)) == [(kind, 0, 7, 99, body) for kind, body in wanted]


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_a_message_of_broken_length_is_left_out_with_all_behind_it(length: int) -> None:
    broken = HEADER.pack(length, 24, 0, 1, 0) + bytes(4)
    assert [kind for kind, *_ in messages(message(3, b"") + broken)] == [3]


@given(st.binary(max_size=120), st.integers(0, 0xFFFF))
def test_rubbish_never_raises(data: bytes, flags: int) -> None:
    for _, _, _, _, body in messages(data):
        assert len(body) <= len(data) - HEADER.size
    code, sentence = refusal(flags, data)
    assert isinstance(code, int)
    assert sentence


def test_success_is_0() -> None:
    assert refusal(CAPPED, bytes(20))[0] == 0


def test_refusal_carries_the_kernels_sentence() -> None:
    text = attribute(1, b"Nexthop has invalid gateway\0")
    body = (-101).to_bytes(4, "little", signed=True) + bytes(16) + text
    assert refusal(ACK_TLVS | CAPPED, body) == (101, "Network is unreachable: Nexthop has invalid gateway")


def test_a_refusal_may_hold_the_whole_request() -> None:
    request = message(24, bytes(44))
    body = struct.pack("=i", -errno.EINVAL) + request + attribute(1, b"Invalid prefix length\0")
    assert refusal(ACK_TLVS, body) == (errno.EINVAL, "Invalid argument: Invalid prefix length")


def test_a_refusal_without_a_sentence_is_said_in_the_systems_words() -> None:
    assert refusal(CAPPED, struct.pack("=i", -errno.EEXIST) + bytes(16)) == (errno.EEXIST, "File exists")


def test_half_an_answer_is_none() -> None:
    assert refusal(CAPPED, b"\0\0") == (errno.EPROTO, "the kernel's answer is cut short")
