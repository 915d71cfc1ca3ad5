"""ExaBGP's own reader and writer of UPDATEs as a second opinion: we agree about all that is well-formed."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from exabgp.bgp.message import Update
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.open.asn import ASN
from exabgp.bgp.message.open.capability.negotiated import Negotiated
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI
from hypothesis import given
from hypothesis import strategies as st
from update_words import IBGP, PEER, attribute, decode, reach, update

from bgp.types import Origin, UpdateReceived

log.init(getenv())


def agreed() -> Any:
    negotiated = Negotiated({"capability": {"aigp": False}})
    negotiated.asn4 = True
    negotiated.families = [(AFI.ipv4, SAFI.unicast), (AFI.ipv6, SAFI.unicast)]
    negotiated.local_as = negotiated.peer_as = ASN(64512)
    return negotiated


def asked(body: bytes) -> Any:
    return Update.unpack_message(body, Direction.IN, agreed())


def number(size: int) -> st.SearchStrategy[bytes]:
    return st.integers(1, 256**size - 1).map(lambda value: value.to_bytes(size, "big"))


as_numbers = st.lists(number(4), min_size=1, max_size=5)
segments = st.lists(
    st.builds(
        lambda kind, numbers: bytes((kind, len(numbers))) + b"".join(numbers), st.sampled_from([1, 2]), as_numbers
    ),
    max_size=3,
).map(b"".join)


def several(size: int, flags: int, code: int) -> st.SearchStrategy[bytes]:
    values = st.lists(number(size), min_size=1, max_size=4, unique=True)
    return st.one_of(st.just(b""), values.map(lambda some: attribute(flags, code, b"".join(some))))


def one(size: int, flags: int, code: int) -> st.SearchStrategy[bytes]:
    return st.one_of(st.just(b""), number(size).map(lambda value: attribute(flags, code, value)))


attributes = st.tuples(
    st.sampled_from([0, 1, 2]).map(lambda value: attribute(0x40, 1, bytes((value,)))),
    segments.map(lambda value: attribute(0x40, 2, value)),
    st.just(attribute(0x40, 3, PEER.packed)),
    one(4, 0x80, 4),
    number(4).map(lambda value: attribute(0x40, 5, value)),
    several(4, 0xC0, 8),
    one(4, 0x80, 9),
    several(4, 0x80, 10),
    several(12, 0xC0, 32),
).map(b"".join)
prefixes = st.lists(
    st.builds(
        lambda value, bits: IPv4Network((value, bits), strict=False),
        st.integers(1 << 24, 0xDFFFFFFF),
        st.integers(8, 32),
    ),
    min_size=1,
    max_size=5,
    unique=True,
)


def nlri(network: IPv4Network) -> bytes:
    return bytes((network.prefixlen,)) + network.network_address.packed[: (network.prefixlen + 7) // 8]


@given(attributes, prefixes)
def test_we_read_what_exabgp_reads(given_attributes: bytes, announced: list[IPv4Network]) -> None:
    body = update(given_attributes, b"".join(map(nlri, announced)))
    theirs = asked(body)
    (ours,) = decode(body, IBGP).heard
    assert isinstance(ours, UpdateReceived)
    assert ours.attributes is not None
    assert {str(each).split()[0] for each in theirs.nlris} == set(map(str, ours.announced)) == set(map(str, announced))
    assert str(theirs.attributes[3]) == str(ours.attributes.next_hop)
    assert Origin(theirs.attributes[1].origin) is ours.attributes.origin
    assert theirs.attributes[5].localpref == ours.attributes.local_preference
    assert (theirs.attributes[4].med if 4 in theirs.attributes else None) == ours.attributes.med
    if 9 in theirs.attributes:
        assert IPv4Address(str(theirs.attributes[9])) == ours.attributes.originator_id
    assert len(theirs.attributes[8].communities if 8 in theirs.attributes else ()) == len(ours.attributes.communities)


@given(attributes, prefixes)
def test_we_read_what_exabgp_writes(given_attributes: bytes, announced: list[IPv4Network]) -> None:
    body = update(given_attributes, b"".join(map(nlri, announced)))
    written = [message[19:] for message in asked(body).messages(agreed())]
    (before,) = decode(body, IBGP).heard
    (after,) = (event for each in written for event in decode(each, IBGP).heard)
    assert isinstance(before, UpdateReceived)
    assert isinstance(after, UpdateReceived)
    assert set(after.announced) == set(before.announced)
    # It sorts what has no order.
    for field in ("next_hop", "origin", "as_path", "med", "local_preference", "originator_id", "cluster_list"):
        assert getattr(after.attributes, field) == getattr(before.attributes, field)
    for field in ("communities", "large_communities"):
        assert sorted(getattr(after.attributes, field)) == sorted(getattr(before.attributes, field))


def test_both_families() -> None:
    body = update(reach("fd00::1") + bytes.fromhex("400101004002004005040000006400"[:-2]))
    written = [message[19:] for message in asked(body).messages(agreed())]
    assert [event for each in written for event in decode(each, IBGP).heard] == list(decode(body, IBGP).heard)
