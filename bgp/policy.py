"""Import policy: which paths of a peer are not wanted, and why; tables of checks, with filters between them.

A path is judged by its attributes first (loops, next hop), then by the filters of the peer, then by its prefix. A
filter that accepts a path outright overrides the checks that are only a precaution (the default route, prefixes outside
the pools), and never those that keep a node from harm (martians, its own blocks, loops).

Paths share attributes: all that depends on these is worked out once for each, and remembered.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from bgp import communities, filters
from bgp.policy_facts import NodeFacts, PeerFacts
from bgp.prefix_table import BITS, PrefixTable, Version
from bgp.spans import Spans, comparable
from bgp.types import AsHop, Attributes, IPAddress, IPNetwork, Path

MARTIANS: tuple[IPNetwork, ...] = (
    IPv4Network("0.0.0.0/8"),  # this network, RFC 791
    IPv4Network("127.0.0.0/8"),  # loopback, RFC 1122
    IPv4Network("169.254.0.0/16"),  # link local, RFC 3927; every pod's gateway lies here
    IPv4Network("224.0.0.0/4"),  # multicast, RFC 5771
    IPv4Network("240.0.0.0/4"),  # reserved, RFC 1112
    IPv6Network("::/96"),  # unspecified, loopback, and what was IPv4-compatible, RFC 4291
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped, RFC 4291
    IPv6Network("fe80::/10"),  # link local, RFC 4291
    IPv6Network("ff00::/8"),  # multicast, RFC 4291
)
"""Prefixes that no unicast route may lead to."""

_MARTIANS = {version: PrefixTable(version, ((network, network) for network in MARTIANS)) for version in BITS}

MOST_REMEMBERED = 256
"""Attributes whose judgement is remembered for one peer; one more, and all are forgotten, so that memory is bounded."""


class Reason(StrEnum):
    """Why a path is refused: not taken from a peer, or not told to one."""

    OWN_AS = "own AS in the AS path"
    OWN_ORIGINATOR = "we are its originator"
    OWN_CLUSTER = "our cluster ID is in its cluster list"
    NO_NEXT_HOP = "no usable next hop"
    OWN_NEXT_HOP = "we are its next hop"
    FILTER = "rejected by a filter"
    DEFAULT_ROUTE = "default route"
    MARTIAN = "martian prefix"
    OUTSIDE = "outside every IP pool"
    OWN_BLOCK = "inside our own block"

    TOLD_BY_PEER = "the peer told it to us"
    NOT_ADVERTISED = "community no-advertise"
    NOT_EXPORTED = "community no-export"
    NOT_EXPORTED_SUBCONFED = "community no-export-subconfed"
    NOT_REFLECTED = "told by iBGP, and neither side is a client of ours"
    NOT_PASSED_ON = "not ours, and nobody asks us to pass it on"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A path that was refused, why, and what in it gave the reason."""

    reason: Reason
    detail: str = ""

    @property
    def rule(self) -> str:
        """Return the rule of a filter that decided; empty where none did."""
        return self.detail if self.reason is Reason.FILTER else ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else str(self.reason)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A path that is wanted.

    Attributes:
        attributes: as policy leaves them; the same object for all paths that came with the same one.
        rule: of a filter that accepted it, in words; empty where none did.
    """

    attributes: Attributes
    rule: str = ""


# --- judging attributes


class _Situation(NamedTuple):
    node: NodeFacts
    peer: PeerFacts
    version: Version


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a table: a reason, and what finds it; the finding is the detail, None for no objection."""

    reason: Reason
    objection: Callable[[_Situation, Attributes], str | None]


def _own_as(situation: _Situation, attributes: Attributes) -> str | None:
    node, peer, _ = situation
    times = sum(_contains(hop, node.asn) or _contains(hop, peer.local_asn) for hop in attributes.as_path)
    return as_path_text(attributes.as_path) if times > peer.own_as_allowed else None


def _own_originator(situation: _Situation, attributes: Attributes) -> str | None:
    originator = attributes.originator_id
    return str(originator) if originator == situation.node.router_id else None


def _own_cluster(situation: _Situation, attributes: Attributes) -> str | None:
    # A node that reflects nothing has its router ID for a cluster ID (RFC 4456 section 7), and may have been a
    # reflector a moment ago.
    own = {situation.node.router_id, situation.node.cluster_id}
    clusters = attributes.cluster_list
    return " ".join(map(str, clusters)) if own.intersection(clusters) else None


def _no_next_hop(situation: _Situation, attributes: Attributes) -> str | None:
    next_hop = attributes.next_hop
    if next_hop is None:
        return ""
    extended = situation.peer.extended_next_hop and next_hop.version > situation.version
    fits = extended or next_hop.version == situation.version
    return None if fits and _is_host(next_hop) else str(next_hop)


def _own_next_hop(situation: _Situation, attributes: Attributes) -> str | None:
    return str(attributes.next_hop) if attributes.next_hop in situation.node.addresses else None


ATTRIBUTE_CHECKS: tuple[Check, ...] = (
    # Loops first: RFC 4271 section 9.1.2, RFC 4456 section 8.
    Check(Reason.OWN_AS, _own_as),
    Check(Reason.OWN_ORIGINATOR, _own_originator),
    Check(Reason.OWN_CLUSTER, _own_cluster),
    # RFC 4271 section 6.3: a next hop must be a host address, and not the receiver's own.
    Check(Reason.NO_NEXT_HOP, _no_next_hop),
    Check(Reason.OWN_NEXT_HOP, _own_next_hop),
)
"""Read from top to bottom; the first that objects decides. Filters come after them."""


# --- judging prefixes


class _Networks:
    """What prefixes of one IP version are compared with, and what is remembered of the attributes they came with."""

    __slots__ = ("considered", "lends", "own", "pools", "pools_text", "spans", "terms", "version")

    def __init__(self, node: NodeFacts, peer: PeerFacts, version: Version) -> None:
        pools = [network for network in node.accept_within if network.version == version]
        self.version = version
        self.terms = filters.terms(peer.filters, "import", version)
        # A prefix inside a pool that has neither a martian in it nor room for all addresses needs no further look.
        self.pools = PrefixTable(version, ((network, _harmless(self, network)) for network in pools))
        self.pools_text = ", ".join(map(str, pools)) or "there is none"
        self.lends = node.lends
        self.own = PrefixTable(version, ((network, network) for network in node.own))
        self.spans = Spans((*pools, *node.own))
        self.considered: dict[int, _Considered] = {}

    def safe(self, number: int, length: int) -> bool:
        """Say that nothing in the table can object to a prefix."""
        return bool(self.pools.containing(number, length)) and self.own.containing(number, length) is None


@dataclass(frozen=True, slots=True)
class PrefixCheck:
    """One line of a table.

    Attributes:
        precaution: it does not stand against a filter that accepts the path.
    """

    reason: Reason
    objection: Callable[[_Networks, int, int], str | None]
    precaution: bool = False


def _default_route(_: _Networks, __: int, length: int) -> str | None:
    return "" if length == 0 else None


def _martian(networks: _Networks, number: int, length: int) -> str | None:
    martians = _MARTIANS[networks.version]
    inside = martians.containing(number, length)
    if inside is not None:
        return str(inside)
    if length and martians.reaches_into(number, length):
        same = (each for each in MARTIANS if each.version == networks.version)
        return next(str(each) for each in same if _covers(number, length, each))
    return None


def _outside(networks: _Networks, number: int, length: int) -> str | None:
    return networks.pools_text if networks.pools.containing(number, length) is None else None


def _own_block(networks: _Networks, number: int, length: int) -> str | None:
    block = networks.own.containing(number, length)
    if block is None or (networks.lends and length == BITS[networks.version] and block.prefixlen < length):
        return None
    return str(block)


PREFIX_CHECKS: tuple[PrefixCheck, ...] = (
    PrefixCheck(Reason.DEFAULT_ROUTE, _default_route, precaution=True),
    PrefixCheck(Reason.MARTIAN, _martian),
    PrefixCheck(Reason.OUTSIDE, _outside, precaution=True),
    PrefixCheck(Reason.OWN_BLOCK, _own_block),
)
"""Read from top to bottom after the filters; the first that objects decides."""


# --- both


@dataclass(frozen=True, slots=True)
class _Considered:
    """What the attributes of a path alone decide.

    Attributes:
        attributes: kept, so that no others can take their place in memory while they are remembered.
        otherwise: where no filter decides; a Refusal where the prefix does not matter.
        terms: rules of filters that may match.
        outcomes: what came of those that have matched, by their words.
    """

    attributes: Attributes
    otherwise: Accepted | Refusal
    terms: tuple[filters.Term, ...] = ()
    outcomes: dict[str, Accepted | Refusal] = field(default_factory=dict)


class ImportPolicy:
    """What is made of the paths of one peer. It always says the same to the same path; make a new one for new facts."""

    __slots__ = ("_networks", "node", "peer")

    def __init__(self, node: NodeFacts, peer: PeerFacts) -> None:
        self.node = node
        self.peer = peer
        self._networks = {version: _Networks(node, peer, version) for version in BITS}

    def judge(self, path: Path) -> Accepted | Refusal:
        """Return the path's attributes as policy leaves them, or the first objection to it."""
        return self.weigh(path.prefix, path.attributes)

    def weigh(self, prefix: IPNetwork, attributes: Attributes) -> Accepted | Refusal:
        """Judge a path to a prefix by what the peer says of it, which is all that counts."""
        networks = self._networks[prefix.version]
        considered = networks.considered.get(id(attributes)) or self._consider(attributes, networks)
        outcome, asked_for = considered.otherwise, False
        if isinstance(outcome, Refusal):
            return outcome
        number, length = int(prefix.network_address), prefix.prefixlen
        for term in considered.terms:
            if term.matches(number, length):
                outcome, asked_for = considered.outcomes.get(term.words) or _of_rule(term, considered), True
                if isinstance(outcome, Refusal):
                    return outcome
                break
        if networks.safe(number, length):
            return outcome
        for check in PREFIX_CHECKS:
            if not (asked_for and check.precaution):
                detail = check.objection(networks, number, length)
                if detail is not None:
                    return Refusal(check.reason, detail)
        return outcome

    def weigh_all(
        self, prefixes: Sequence[IPNetwork], attributes: Attributes
    ) -> Iterator[tuple[Accepted | Refusal, Sequence[IPNetwork]]]:
        """Judge paths to many prefixes with the same attributes; yield each outcome with all that it holds for."""
        groups: dict[int | Refusal, tuple[Accepted | Refusal, list[IPNetwork]]] = {}
        alike, others = self._judged_alike(prefixes, attributes)
        for prefix in others:
            outcome = self.weigh(prefix, attributes)
            key = id(outcome) if isinstance(outcome, Accepted) else outcome
            group = groups.get(key)
            if group is None:
                group = groups[key] = outcome, []
            group[1].append(prefix)
        if alike:
            yield self.weigh(alike[0], attributes), alike
        yield from groups.values()

    def _judged_alike(
        self, prefixes: Sequence[IPNetwork], attributes: Attributes
    ) -> tuple[Sequence[IPNetwork], Sequence[IPNetwork]]:
        """Return the prefixes of which it is plain that one judgement holds for all, and the others."""
        if not comparable(prefixes):
            return (), prefixes
        networks = self._networks[prefixes[0].version]
        considered = networks.considered.get(id(attributes)) or self._consider(attributes, networks)
        if isinstance(considered.otherwise, Refusal):
            return prefixes, ()
        if considered.terms:
            return (), prefixes
        alike: list[IPNetwork] = []
        others: list[IPNetwork] = []
        for piece in networks.spans.pieces(prefixes):
            (alike if networks.safe(int(piece[0].network_address), piece[0].prefixlen) else others).extend(piece)
        return alike, others

    def _consider(self, attributes: Attributes, networks: _Networks) -> _Considered:
        considered = self._looked_at(attributes, networks)
        if len(networks.considered) >= MOST_REMEMBERED:
            networks.considered.clear()
        networks.considered[id(attributes)] = considered
        return considered

    def _looked_at(self, attributes: Attributes, networks: _Networks) -> _Considered:
        situation = _Situation(self.node, self.peer, networks.version)
        for check in ATTRIBUTE_CHECKS:
            detail = check.objection(situation, attributes)
            if detail is not None:
                return _Considered(attributes, Refusal(check.reason, detail))
        otherwise = Accepted(_drained(attributes))
        if not networks.terms:
            return _Considered(attributes, otherwise)
        facts = self.peer.facts(self.node.interfaces.get(attributes.next_hop) if attributes.next_hop else None)
        return _Considered(attributes, otherwise, filters.narrowed(networks.terms, attributes, facts))


def _of_rule(term: filters.Term, considered: _Considered) -> Accepted | Refusal:
    judged = filters.judged(term, considered.attributes, to_ebgp=False)
    outcome = Accepted(_drained(judged.attributes), judged.rule) if judged.accepted else refused(judged)
    considered.outcomes[term.words] = outcome
    return outcome


def refused(judged: filters.Judged) -> Refusal:
    """Return what a filter that rejects a path comes to."""
    return Refusal(Reason.FILTER, judged.rule)


def _drained(attributes: Attributes) -> Attributes:
    """Rank a path last whose teller is about to go, or of whom a filter says so by the community (RFC 8326)."""
    if communities.GRACEFUL_SHUTDOWN not in attributes.communities:
        return attributes
    return replace(attributes, local_preference=0)


def as_path_text(hops: tuple[AsHop, ...]) -> str:
    """Return an AS path as routers print it: `64500 64512 {65001,65002}`."""
    return " ".join(
        str(hop) if isinstance(hop, int) else "{" + ",".join(str(number) for number in sorted(hop)) + "}"
        for hop in hops
    )


def _contains(hop: AsHop, asn: int) -> bool:
    return hop == asn if isinstance(hop, int) else asn in hop


def _is_host(address: IPAddress) -> bool:
    # An IPv6 link-local address means nothing without its link, and the agent would not know by which to send.
    return _MARTIANS[address.version].containing(int(address), address.max_prefixlen) is None


def _harmless(networks: _Networks, pool: IPNetwork) -> bool:
    number, length = int(pool.network_address), pool.prefixlen
    return length > 0 and _martian(networks, number, length) is None


def _covers(number: int, length: int, other: IPNetwork) -> bool:
    bits = other.max_prefixlen
    return length <= other.prefixlen and int(other.network_address) >> bits - length == number >> bits - length
