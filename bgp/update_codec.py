"""UPDATE messages as events: prefixes and attributes read from their bytes, errors handled as RFC 7606 says.

A session says the same attributes, and several sessions the same prefixes, again and again: both are remembered by
their bytes, so that most of the work is looking them up, and equal things are one object.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from bgp import attribute_codec
from bgp.attribute_codec import Code, Given, Raw, Reader, Terms
from bgp.prefixes import Prefixes
from bgp.types import Attributes, EndOfRib, Family, IPAddress, IPNetwork, UpdateReceived
from bgp.update_faults import Approach, Fault, Subcode

HEADER = 19
"""Octets before the body of every message: marker, length, type (RFC 4271 section 4.1)."""

UPDATE = 2
"""The type of an UPDATE."""

END_OF_RIB = bytes(4)
"""The body of an UPDATE that says nothing, which is End-of-RIB of IPv4 (RFC 4724 section 2)."""

FAMILIES = {(1, 1): Family.IPV4_UNICAST, (2, 1): Family.IPV6_UNICAST}
"""By address family and subsequent address family (RFC 4760 section 10)."""

NUMBERS = {family: numbers for numbers, family in FAMILIES.items()}

SETS_KNOWN = 4096
"""Sets of attributes that a decoder remembers."""

Heard: TypeAlias = UpdateReceived | EndOfRib


class SessionReset(Exception):  # noqa: N818 - named for what has to be done
    """An UPDATE after which nothing that the peer says can be understood.

    Attributes:
        fault: what the NOTIFICATION has to say.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Decoded:
    """What an UPDATE said.

    Attributes:
        faults: what was wrong with it and could be handled.
    """

    heard: tuple[Heard, ...]
    faults: tuple[Fault, ...] = ()


def bodies(run: bytes) -> Iterator[bytes]:
    """Yield the bodies of UPDATEs that follow each other.

    Raises:
        ValueError: they do not.
    """
    at, end = 0, len(run)
    while at < end:
        length = int.from_bytes(run[at + 16 : at + 18], "big")
        if length < HEADER + len(END_OF_RIB) or at + length > end or run[at + 18] != UPDATE:
            raise ValueError(f"no UPDATE at octet {at} of {end}")
        yield run[at + HEADER : at + length]
        at += length


class Decoder:
    """Reads the UPDATEs of one session."""

    def __init__(self, peer: IPAddress, terms: Terms, prefixes: Prefixes) -> None:
        self.peer = peer
        self._terms = terms
        self._prefixes = prefixes
        self._reader = Reader(terms)
        self._sets: dict[bytes | tuple[Raw, ...], Given] = {}
        self._with_next_hop: dict[tuple[int, bytes], tuple[Attributes, Attributes]] = {}

    def update(self, body: bytes) -> Decoded:
        """Return what an UPDATE says, from the bytes after its header.

        Raises:
            SessionReset: the session cannot go on.
        """
        if body == END_OF_RIB:
            return Decoded((EndOfRib(self.peer, Family.IPV4_UNICAST),))
        withdrawn_field, block, announced_field = _fields(body)
        withdrawn = self._native(withdrawn_field)
        announced = self._native(announced_field)
        if announced and Family.IPV4_UNICAST not in self._terms.families:
            parts = _Parts(Given(Attributes(None)), withdrawn=withdrawn, foreign=True, faults=(_foreign("the prefix"),))
            return self._conclude(parts)
        # A block without prefixes of its own comes again as it is; most blocks are such.
        given = self._sets.get(block)
        if given is None:
            return self._thorough(block, announced, withdrawn)
        if given.faults or not announced or not given.codes >= MANDATORY:
            return self._conclude(_Parts(given, announced, withdrawn))
        return Decoded((UpdateReceived(self.peer, announced, withdrawn, given.attributes),))

    def _native(self, field: bytes) -> tuple[IPNetwork, ...]:
        if not field:
            return ()
        try:
            return self._prefixes.read(Family.IPV4_UNICAST, field)
        except ValueError as error:
            raise _reset(Subcode.NETWORK, f"{error} (RFC 7606 section 5.3)") from None

    def _thorough(self, block: bytes, announced: tuple[IPNetwork, ...], withdrawn: tuple[IPNetwork, ...]) -> Decoded:
        """Read a block of attributes one by one."""
        raws, overrun = attribute_codec.split(block)
        multiprotocol = [raw for raw in raws if raw.code in (Code.MP_REACH_NLRI, Code.MP_UNREACH_NLRI)]
        if not multiprotocol and not overrun:
            given = self._sets[block] = self._remember(tuple(raws))
            return self._conclude(_Parts(given, announced, withdrawn))
        given = self._remember(tuple(raw for raw in raws if raw not in multiprotocol))
        if overrun:
            given = replace(given, faults=(*given.faults, overrun))
        return self._conclude(self._multiprotocol(_Parts(given, announced, withdrawn), multiprotocol))

    def _remember(self, raws: tuple[Raw, ...]) -> Given:
        given = self._sets.get(raws)
        if given is None:
            if len(self._sets) >= SETS_KNOWN:
                self._sets.clear()
                self._with_next_hop.clear()
            given = self._sets[raws] = self._reader.read(raws)
        return given

    # --- MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760)

    def _multiprotocol(self, parts: "_Parts", raws: list[Raw]) -> "_Parts":
        for raw in raws:
            what = attribute_codec.name(raw.code)
            if sum(other.code == raw.code for other in raws) > 1:
                raise _reset(Subcode.ATTRIBUTE_LIST, f"{what} stands there twice (RFC 7606 section 3 g)")
            reach = raw.code == Code.MP_REACH_NLRI
            least = 5 if reach else 3
            if raw.flags & FLAGS != attribute_codec.OPTIONAL or len(raw.value) < least:
                wrong = f"{what} has the flags {raw.flags:#04x} and {len(raw.value)} octets (RFC 7606 section 5.3)"
                raise _reset(Subcode.OPTIONAL, wrong, raw.octets)
            family = FAMILIES.get((int.from_bytes(raw.value[:2], "big"), raw.value[2]))
            if family is None or family not in self._terms.families:
                parts = replace(parts, foreign=True, faults=(*parts.faults, _foreign(what)))
            elif reach:
                parts = self._reach(parts, family, raw)
            else:
                parts = self._unreach(parts, family, raw)
        return parts

    def _unreach(self, parts: "_Parts", family: Family, raw: Raw) -> "_Parts":
        withdrawn = self._listed(family, raw.value[3:], raw)
        alone = not parts.given.codes and not parts.given.faults and not parts.announced and not parts.withdrawn
        # RFC 4724 section 2: nothing but an empty MP_UNREACH_NLRI is End-of-RIB.
        return replace(parts, unreach=withdrawn, end_of_rib=family if alone and not withdrawn else None)

    def _reach(self, parts: "_Parts", family: Family, raw: Raw) -> "_Parts":
        size = raw.value[3]
        allowed = NEXT_HOPS[family] + (NEXT_HOPS[Family.IPV6_UNICAST] if self._terms.ipv6_next_hops else ())
        if size not in allowed or len(raw.value) < 5 + size:
            wrong = f"the next hop of {family} in MP_REACH_NLRI has {size} octets (RFC 7606 section 7.11)"
            raise _reset(Subcode.OPTIONAL, wrong, raw.octets)
        reach = self._listed(family, raw.value[5 + size :], raw)
        return replace(parts, reach=reach, next_hop=raw.value[4 : 4 + size], end_of_rib=None)

    def _listed(self, family: Family, field: bytes, raw: Raw) -> tuple[IPNetwork, ...]:
        try:
            return self._prefixes.read(family, field)
        except ValueError as error:
            wrong = f"{attribute_codec.name(raw.code)}: {error} (RFC 7606 section 5.3)"
            raise _reset(Subcode.OPTIONAL, wrong, raw.octets) from None

    # --- what it comes to

    def _conclude(self, parts: "_Parts") -> Decoded:
        faults = (*parts.given.faults, *parts.faults, *_missing(parts))
        strongest = max(faults, key=lambda fault: fault.approach, default=None)
        approach = strongest.approach if strongest else Approach.DISCARD
        if strongest and approach is not Approach.DISCARD and not parts.reachable:
            # RFC 7606 section 5.2: with nothing to withdraw, one cannot be sure to have found the prefixes.
            raise SessionReset(replace(strongest, approach=Approach.RESET))
        if strongest and approach is Approach.RESET:
            raise SessionReset(strongest)
        return Decoded(tuple(self._events(parts, withdraw=approach is Approach.WITHDRAW)), faults)

    def _events(self, parts: "_Parts", *, withdraw: bool) -> Iterator[Heard]:
        if parts.end_of_rib:
            yield EndOfRib(self.peer, parts.end_of_rib)
            return
        withdrawn = parts.withdrawn + parts.unreach
        if withdraw:
            withdrawn += parts.announced + parts.reach
        elif parts.announced:
            yield UpdateReceived(self.peer, parts.announced, withdrawn, parts.given.attributes)
            withdrawn = ()
        if parts.reach and not withdraw:
            yield UpdateReceived(self.peer, parts.reach, withdrawn, self._attributes(parts))
        elif withdrawn:
            yield UpdateReceived(self.peer, withdrawn=withdrawn)

    def _attributes(self, parts: "_Parts") -> Attributes:
        """Return the attributes with the next hop of MP_REACH_NLRI; the same object for the same ones."""
        plain = parts.given.attributes
        key = id(plain), parts.next_hop
        known = self._with_next_hop.get(key)
        if known is None or known[0] is not plain:
            known = self._with_next_hop[key] = (plain, replace(plain, next_hop=_next_hop(parts.next_hop)))
        return known[1]


FLAGS = attribute_codec.OPTIONAL | attribute_codec.TRANSITIVE

NEXT_HOPS = {Family.IPV4_UNICAST: (4,), Family.IPV6_UNICAST: (16, 32)}
"""Octets that the next hop of a family may have; 32 are a global address and one of the link (RFC 2545 section 3)."""

MANDATORY = frozenset({Code.ORIGIN, Code.AS_PATH, Code.NEXT_HOP})
"""What must come with prefixes; with those of MP_REACH_NLRI no NEXT_HOP (RFC 4760 section 3)."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """An UPDATE, taken apart.

    Attributes:
        foreign: it has prefixes of a family that was not agreed on, which are passed over.
    """

    given: Given
    announced: tuple[IPNetwork, ...] = ()
    withdrawn: tuple[IPNetwork, ...] = ()
    reach: tuple[IPNetwork, ...] = ()
    unreach: tuple[IPNetwork, ...] = ()
    next_hop: bytes = b""
    end_of_rib: Family | None = None
    foreign: bool = False
    faults: tuple[Fault, ...] = ()

    @property
    def reachable(self) -> bool:
        return bool(self.announced or self.reach) or self.foreign


def _fields(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Return withdrawn routes, attributes and announced prefixes (RFC 4271 section 4.3)."""
    middle = 2 + int.from_bytes(body[:2], "big")
    end = middle + 2 + int.from_bytes(body[middle : middle + 2], "big")
    if middle + 2 > len(body) or end > len(body):
        raise _reset(Subcode.ATTRIBUTE_LIST, "its lengths are more than it has (RFC 7606 section 3 b)")
    return body[2:middle], body[middle + 2 : end], body[end:]


def _missing(parts: _Parts) -> Iterator[Fault]:
    wanted = MANDATORY if parts.announced else MANDATORY - {Code.NEXT_HOP} if parts.reach else frozenset()
    for code in sorted(wanted - parts.given.codes):
        reason = f"{attribute_codec.name(code)} is missing (RFC 7606 section 3 d)"
        yield Fault(Approach.WITHDRAW, Subcode.MISSING, reason, bytes((code,)))


def _foreign(what: str) -> Fault:
    return Fault(Approach.DISCARD, Subcode.OPTIONAL, f"{what} is of a family that the session does not carry")


def _next_hop(octets: bytes) -> IPAddress:
    if len(octets) == 4:  # noqa: PLR2004 - the octets of an IPv4 address
        return IPv4Address(octets)
    world = IPv6Address(octets[:16])
    # RFC 2545 section 3: the address of the link comes second, and stands alone only where there is no other.
    return IPv6Address(octets[16:]) if world.is_unspecified and len(octets) > 16 else world  # noqa: PLR2004 - same


def _reset(subcode: Subcode, reason: str, data: bytes = b"") -> SessionReset:
    return SessionReset(Fault(Approach.RESET, subcode, reason, data))
