"""Path attributes of an UPDATE, read from their bytes; what is wrong with them, and what RFC 7606 does about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Address
from itertools import chain
from typing import Any, NamedTuple

from bgp.types import AsHop, Attributes, Family, Origin
from bgp.update_faults import Approach, Fault, Subcode

OPTIONAL, TRANSITIVE, EXTENDED_LENGTH = 0x80, 0x40, 0x10
"""Flags of a path attribute (RFC 4271 section 4.3)."""

AS_TRANS = 23456
"""What a speaker without four-octet numbers reads where one stands (RFC 6793)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a session has agreed on, as far as it changes what an UPDATE means.

    Attributes:
        four_octet: AS numbers have four octets (RFC 6793).
        ipv6_next_hops: IPv4 prefixes may have them (RFC 8950).
    """

    external: bool = False
    four_octet: bool = True
    families: frozenset[Family] = frozenset({Family.IPV4_UNICAST})
    ipv6_next_hops: bool = False


class Code(IntEnum):
    """The attributes that are known here."""

    ORIGIN = 1
    AS_PATH = 2
    NEXT_HOP = 3
    MULTI_EXIT_DISC = 4
    LOCAL_PREF = 5
    ATOMIC_AGGREGATE = 6
    AGGREGATOR = 7
    COMMUNITIES = 8
    ORIGINATOR_ID = 9
    CLUSTER_LIST = 10
    MP_REACH_NLRI = 14
    MP_UNREACH_NLRI = 15
    EXTENDED_COMMUNITIES = 16
    AS4_PATH = 17
    AS4_AGGREGATOR = 18
    LARGE_COMMUNITIES = 32


class Raw(NamedTuple):
    """One attribute as it came."""

    flags: int
    code: int
    value: bytes

    @property
    def octets(self) -> bytes:
        """The whole attribute, as NOTIFICATIONs show it."""
        return bytes((self.flags | EXTENDED_LENGTH, self.code)) + len(self.value).to_bytes(2, "big") + self.value


def split(block: bytes) -> tuple[list[Raw], Fault | None]:
    """Return the attributes of a block; if it does not end where one ends, those before, and what is wrong."""
    found: list[Raw] = []
    at, end = 0, len(block)
    while at < end:
        flags = block[at]
        start = at + (4 if flags & EXTENDED_LENGTH else 3)
        if start > end:
            return found, _overrun(f"{end - at} octets are left over after the last attribute")
        length = int.from_bytes(block[at + 2 : start], "big")
        if start + length > end:
            return found, _overrun(f"{name(block[at + 1])} has {length} octets, and {end - start} are left")
        found.append(Raw(flags, block[at + 1], block[start : start + length]))
        at = start + length
    return found, None


def _overrun(reason: str) -> Fault:
    # RFC 7606 section 4: the total length is relied upon, so the prefixes can still be found.
    return Fault(Approach.WITHDRAW, Subcode.ATTRIBUTE_LIST, reason)


class _Malformed(ValueError):  # noqa: N818 - named for what the value is
    """A value that its reader cannot read."""

    def __init__(self, reason: str, subcode: Subcode = Subcode.LENGTH) -> None:
        super().__init__(reason)
        self.subcode = subcode


# --- readers of values


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise _Malformed(f"has {len(value)} octets, not {size}")
    return value


def _several(value: bytes, size: int) -> Iterator[bytes]:
    if len(value) % size:
        raise _Malformed(f"has {len(value)} octets, no multiple of {size}")
    return (value[at : at + size] for at in range(0, len(value), size))


def _number(value: bytes, _: Terms) -> int:
    return int.from_bytes(_sized(value, 4), "big")


def _origin(value: bytes, _: Terms) -> Origin:
    number = _sized(value, 1)[0]
    if number > Origin.INCOMPLETE:
        raise _Malformed(f"is {number}, which means nothing", Subcode.ORIGIN)
    return Origin(number)


def _address(value: bytes, _: Terms) -> IPv4Address:
    return IPv4Address(_sized(value, 4))


def _nothing(value: bytes, _: Terms) -> bool:
    _sized(value, 0)
    return True


def _aggregator(value: bytes, width: int) -> tuple[int, IPv4Address]:
    _sized(value, width + 4)
    asn = int.from_bytes(value[:width], "big")
    if not asn:
        raise _Malformed("has AS 0", Subcode.OPTIONAL)  # RFC 7607
    return asn, IPv4Address(value[width:])


def _communities(value: bytes, _: Terms) -> tuple[tuple[int, int], ...]:
    return tuple((int.from_bytes(each[:2], "big"), int.from_bytes(each[2:], "big")) for each in _several(value, 4))


def _large(value: bytes, _: Terms) -> tuple[tuple[int, int, int], ...]:
    triples = (
        (int.from_bytes(each[:4], "big"), int.from_bytes(each[4:8], "big"), int.from_bytes(each[8:], "big"))
        for each in _several(value, 12)
    )
    return tuple(dict.fromkeys(triples))  # RFC 8092 section 5: the same one twice counts once


SET, SEQUENCE, CONFEDERATION_SEQUENCE, CONFEDERATION_SET = 1, 2, 3, 4
"""Types of path segments (RFC 4271 section 4.3, RFC 5065 section 3)."""


def _as_path(value: bytes, terms: Terms, width: int) -> tuple[AsHop, ...]:
    return tuple(chain.from_iterable(_hops(*segment, terms) for segment in _segments(value, width)))


def _segments(value: bytes, width: int) -> Iterator[tuple[int, list[int]]]:
    at, end = 0, len(value)
    while at < end:
        if at + 1 == end:
            raise _Malformed("ends within a segment's head", Subcode.AS_PATH)
        kind, start = value[at], at + 2
        at = start + value[at + 1] * width
        if not SET <= kind <= CONFEDERATION_SET:
            raise _Malformed(f"has a segment of type {kind}", Subcode.AS_PATH)
        if at > end or at == start:
            what = "longer than what is left" if at > end else "without an AS"
            raise _Malformed(f"has a segment {what}", Subcode.AS_PATH)
        numbers = [int.from_bytes(value[each : each + width], "big") for each in range(start, at, width)]
        if 0 in numbers:
            raise _Malformed("has AS 0", Subcode.AS_PATH)  # RFC 7607
        yield kind, numbers


def _hops(kind: int, numbers: list[int], terms: Terms) -> tuple[AsHop, ...]:
    if kind == SEQUENCE:
        return tuple(numbers)
    if kind == SET:
        return (frozenset(numbers),)
    if terms.external:
        # RFC 5065 section 5: no neighbour outside a confederation may send them.
        raise _Malformed("has a confederation's segment", Subcode.AS_PATH)
    return ()


# --- the table


@dataclass(frozen=True, slots=True)
class Kind:
    """What there is to know of an attribute.

    Attributes:
        flags: its Optional and Transitive bits.
        field: the field of Attributes that it becomes.
        source: where it stands what is done about an error in it.
        approach: what is done where its value cannot be read.
        internal: it means something between routers of one AS only.
    """

    flags: int
    read: Callable[[bytes, Terms], Any]
    field: str
    source: str
    approach: Approach = Approach.WITHDRAW
    internal: bool = False
    may_be_empty: bool = False


KINDS: Mapping[int, Kind] = {
    Code.ORIGIN: Kind(TRANSITIVE, _origin, "origin", "RFC 7606 section 7.1"),
    Code.AS_PATH: Kind(
        TRANSITIVE,
        lambda value, terms: _as_path(value, terms, 4 if terms.four_octet else 2),
        "as_path",
        "RFC 7606 section 7.2",
        may_be_empty=True,
    ),
    Code.NEXT_HOP: Kind(TRANSITIVE, _address, "next_hop", "RFC 7606 section 7.3"),
    Code.MULTI_EXIT_DISC: Kind(OPTIONAL, _number, "med", "RFC 7606 section 7.4"),
    Code.LOCAL_PREF: Kind(TRANSITIVE, _number, "local_preference", "RFC 7606 section 7.5", internal=True),
    Code.ATOMIC_AGGREGATE: Kind(
        TRANSITIVE, _nothing, "atomic_aggregate", "RFC 7606 section 7.6", Approach.DISCARD, may_be_empty=True
    ),
    Code.AGGREGATOR: Kind(
        OPTIONAL | TRANSITIVE,
        lambda value, terms: _aggregator(value, 4 if terms.four_octet else 2),
        "aggregator",
        "RFC 7606 section 7.7",
        Approach.DISCARD,
    ),
    Code.COMMUNITIES: Kind(OPTIONAL | TRANSITIVE, _communities, "communities", "RFC 7606 section 7.8"),
    Code.ORIGINATOR_ID: Kind(OPTIONAL, _address, "originator_id", "RFC 7606 section 7.9", internal=True),
    Code.CLUSTER_LIST: Kind(
        OPTIONAL,
        lambda value, _: tuple(map(IPv4Address, _several(value, 4))),
        "cluster_list",
        "RFC 7606 section 7.10",
        internal=True,
    ),
    Code.EXTENDED_COMMUNITIES: Kind(
        OPTIONAL | TRANSITIVE,
        lambda value, _: tuple(_several(value, 8)),
        "extended_communities",
        "RFC 7606 section 7.14",
    ),
    Code.AS4_PATH: Kind(
        OPTIONAL | TRANSITIVE,
        lambda value, terms: _as_path(value, replace(terms, external=False), 4),
        "as4_path",
        "RFC 6793 section 6",
        Approach.DISCARD,
    ),
    Code.AS4_AGGREGATOR: Kind(
        OPTIONAL | TRANSITIVE,
        lambda value, _: _aggregator(value, 4),
        "as4_aggregator",
        "RFC 6793 section 6",
        Approach.DISCARD,
    ),
    Code.LARGE_COMMUNITIES: Kind(OPTIONAL | TRANSITIVE, _large, "large_communities", "RFC 8092 section 6"),
}
"""Every attribute that becomes part of a path; MP_REACH_NLRI and MP_UNREACH_NLRI carry prefixes and stand elsewhere."""


def name(code: int) -> str:
    """Return what an attribute is called."""
    return NAMES.get(code, f"attribute {code}")


NAMES = {int(code): code.name for code in Code}


# --- the reader


@dataclass(frozen=True, slots=True)
class Given:
    """What a set of attributes says.

    Attributes:
        codes: which there were, malformed ones too.
    """

    attributes: Attributes
    codes: frozenset[int] = frozenset()
    faults: tuple[Fault, ...] = ()


KNOWN = 4096
"""Attributes that a reader remembers, by their bytes; a session says the same ones again and again."""


class Reader:
    """Reads the attributes of one session, MP_REACH_NLRI and MP_UNREACH_NLRI excepted."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._known: dict[Raw, Any] = {}

    def read(self, raws: Iterable[Raw]) -> Given:
        """Return what they say; of one that stands there twice the first counts (RFC 7606 section 3 g)."""
        fields: dict[str, Any] = {}
        codes: set[int] = set()
        faults: list[Fault] = []
        unrecognized: list[tuple[int, int, bytes]] = []
        for raw in raws:
            if raw.code in codes:
                faults.append(Fault(Approach.DISCARD, Subcode.ATTRIBUTE_LIST, f"{name(raw.code)} stands there twice"))
                continue
            codes.add(raw.code)
            kind = KINDS.get(raw.code)
            if kind is None:
                faults += self._unknown(raw, unrecognized)
                continue
            value = self._value(raw, kind)
            if isinstance(value, Fault):
                faults.append(value)
            else:
                fields[kind.field] = value
        self._merge(fields)
        attributes = Attributes(**({"next_hop": None} | fields), unrecognized=tuple(unrecognized))
        return Given(attributes, frozenset(codes), tuple(faults))

    def _value(self, raw: Raw, kind: Kind) -> Any:
        """Return the value of an attribute, or what is wrong with it."""
        found = self._known.get(raw)
        if found is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            found = self._known[raw] = self._judge(raw, kind)
        return found

    def _judge(self, raw: Raw, kind: Kind) -> Any:
        def fault(approach: Approach, subcode: Subcode, what: str) -> Fault:
            return Fault(approach, subcode, f"{name(raw.code)} {what}", raw.octets)

        if kind.internal and self._terms.external:
            return fault(Approach.DISCARD, Subcode.OPTIONAL, f"came over eBGP ({kind.source})")
        if raw.flags & (OPTIONAL | TRANSITIVE) != kind.flags:
            what = f"has the flags {raw.flags:#04x} (RFC 7606 section 3 c)"
            return fault(Approach.WITHDRAW, Subcode.FLAGS, what)
        if not raw.value and not kind.may_be_empty:
            return fault(kind.approach, Subcode.LENGTH, f"is empty ({kind.source})")
        try:
            return kind.read(raw.value, self._terms)
        except _Malformed as malformed:
            return fault(kind.approach, malformed.subcode, f"{malformed} ({kind.source})")

    def _unknown(self, raw: Raw, unrecognized: list[tuple[int, int, bytes]]) -> Iterator[Fault]:
        """Keep what has to be passed on; object to what everybody has to know."""
        if not raw.flags & OPTIONAL:
            reason = f"{name(raw.code)} says that it is well-known (RFC 4271 section 6.3)"
            yield Fault(Approach.RESET, Subcode.UNRECOGNIZED, reason, raw.octets)
        elif raw.flags & TRANSITIVE:
            unrecognized.append(raw)

    def _merge(self, fields: dict[str, Any]) -> None:
        """Put AS numbers of four octets in the place of AS_TRANS (RFC 6793 section 4.2.3)."""
        path, aggregator = fields.pop("as4_path", None), fields.pop("as4_aggregator", None)
        if self._terms.four_octet:
            return  # they mean nothing from a speaker that could have said it directly
        if aggregator and "aggregator" in fields:
            if fields["aggregator"][0] != AS_TRANS:
                return  # somebody between us aggregated since, and knew nothing of four octets
            fields["aggregator"] = aggregator
        short = fields.get("as_path", ())
        if path and len(path) <= len(short):
            fields["as_path"] = short[: len(short) - len(path)] + path
