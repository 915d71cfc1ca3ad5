"""Export policy: what is told to a peer, with which attributes, and why something is not told.

Our own prefixes are told to everybody. What peers told us is passed on where we reflect routes (RFC 4456), and where an
export filter of the peer accepts it outright; and never where that could loop, or where a community forbids it.

Filters see a route before our own AS is put in front of its AS path, which nothing can come before (many routers refuse
a path that does not begin with the AS of its teller), and with the communities of `prefixAdvertisements` on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from bgp import communities, filters
from bgp.communities import Community
from bgp.decision import DEFAULT_LOCAL_PREFERENCE
from bgp.filters import Facts
from bgp.policy import MOST_REMEMBERED, Accepted, Reason, Refusal, refused
from bgp.policy_facts import NodeFacts, PeerFacts
from bgp.prefix_table import BITS, PrefixTable, Version
from bgp.types import Attributes, IPAddress, IPNetwork, Path

NON_TRANSITIVE = 0x40
"""Bit of the first octet of an extended community that does not leave its AS (RFC 4360 section 2)."""

Outcome = Accepted | Refusal


@dataclass(frozen=True, slots=True)
class Learned:
    """A path that a peer told us, as what export policy asks of it.

    Attributes:
        attributes: as import policy left them.
        external: it came by eBGP.
        router_id: of the peer that told it.
        from_client: that peer is a client of ours.
    """

    attributes: Attributes
    external: bool
    router_id: IPv4Address
    from_client: bool


def _not_advertised(learned: Learned, _: NodeFacts, __: PeerFacts) -> bool:
    return communities.NO_ADVERTISE in learned.attributes.communities


def _not_exported(learned: Learned, _: NodeFacts, peer: PeerFacts) -> bool:
    return peer.external and communities.NO_EXPORT in learned.attributes.communities


def _not_exported_subconfed(learned: Learned, _: NodeFacts, peer: PeerFacts) -> bool:
    return peer.external and communities.NO_EXPORT_SUBCONFED in learned.attributes.communities


def _not_reflected(learned: Learned, node: NodeFacts, peer: PeerFacts) -> bool:
    # RFC 4271 section 9.2.1; RFC 4456 section 6: from a client to all, from others to clients.
    within = not learned.external and not peer.external
    return within and (node.cluster_id is None or not (learned.from_client or peer.client))


CHECKS: tuple[tuple[Reason, Callable[[Learned, NodeFacts, PeerFacts], bool]], ...] = (
    # RFC 1997. Only of what others told: what we tag ourselves is meant for those whom we tell it.
    (Reason.NOT_ADVERTISED, _not_advertised),
    (Reason.NOT_EXPORTED, _not_exported),
    (Reason.NOT_EXPORTED_SUBCONFED, _not_exported_subconfed),
    (Reason.NOT_REFLECTED, _not_reflected),
)
"""Why what a peer told us is not told to another; read from top to bottom, and no filter stands against them."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Attributes on their way to the peer; only the prefix is missing.

    Attributes:
        key: what they were made from, kept so that nothing else can take its place in memory.
        attributes: as filters see them.
        otherwise: where no filter decides.
        terms: rules of filters that may match.
        outcomes: what came of those that have matched, by their words.
    """

    key: Attributes
    attributes: Attributes
    otherwise: Outcome
    terms: tuple[filters.Term, ...] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)


class ExportPolicy:
    """What one peer is told. It always says the same to the same question; make a new one for new facts.

    The attributes that it returns are one object for all prefixes that are told alike. A next hop of None is ourselves.
    """

    __slots__ = ("_communities", "_learned", "_own", "_terms", "node", "peer")

    def __init__(self, node: NodeFacts, peer: PeerFacts) -> None:
        self.node = node
        self.peer = peer
        self._communities = {version: PrefixTable(version, node.communities.items()) for version in BITS}
        self._terms = {version: filters.terms(peer.filters, "export", version) for version in BITS}
        self._own: dict[tuple[Version, tuple[Community, ...]], _Prepared] = {}
        self._learned: dict[tuple[Version, int, bool, bool, IPv4Address], _Prepared] = {}

    @property
    def passes_on(self) -> bool:
        """Say whether the peer could be told anything that is not our own, so that asking about it is worth it."""
        return self.node.cluster_id is not None or any(
            rule.action is filters.Action.ACCEPT
            for each in self.peer.filters
            for rule in (*each.export_v4, *each.export_v6)
        )

    def own(self, prefix: IPNetwork) -> Outcome:
        """Return what the peer is told of a prefix of our own."""
        version: Version = prefix.version
        number, length = int(prefix.network_address), prefix.prefixlen
        tags = dict.fromkeys(
            each for entry in self._communities[version].all_containing(number, length) for each in entry
        )
        key = (version, tuple(tags))
        prepared = self._own.get(key)
        if prepared is None:
            attributes = communities.tagged(Attributes(next_hop=None), tags)
            facts = self.peer.facts(None, learned=False)
            prepared = self._own[key] = self._prepare(attributes, attributes, version, facts, passed_on=True)
        return self._answer(prepared, number, length)

    def learned(self, path: Path, *, from_client: bool = False) -> Outcome:
        """Return what the peer is told of a path that another one told us.

        Args:
            path: with the attributes that import policy left it.
            from_client: we reflect routes for whoever told it (RFC 4456).
        """
        if path.peer == self.peer.address:
            return Refusal(Reason.TOLD_BY_PEER)
        version: Version = path.prefix.version
        key = (version, id(path.attributes), path.external, from_client, path.router_id)
        prepared = self._learned.get(key)
        if prepared is None:
            if len(self._learned) >= MOST_REMEMBERED:
                self._learned.clear()
            learned = Learned(path.attributes, path.external, path.router_id, from_client)
            prepared = self._learned[key] = self._prepare_learned(learned, version)
        return self._answer(prepared, int(path.prefix.network_address), path.prefix.prefixlen)

    def _prepare_learned(self, learned: Learned, version: Version) -> _Prepared:
        for reason, objects in CHECKS:
            if objects(learned, self.node, self.peer):
                return _Prepared(learned.attributes, learned.attributes, Refusal(reason))
        next_hop = learned.attributes.next_hop
        facts = self.peer.facts(self.node.interfaces.get(next_hop) if next_hop else None)
        passed_on = self.node.cluster_id is not None
        return self._prepare(learned.attributes, self._passed_on(learned), version, facts, passed_on=passed_on)

    def _passed_on(self, learned: Learned) -> Attributes:
        """Return the attributes of somebody else's path as filters are to see them."""
        attributes = learned.attributes
        if self.peer.external:
            # RFC 4271 section 5.1.4: a MED goes no farther than the AS that it was sent to.
            return replace(attributes, next_hop=self._next_hop(attributes.next_hop), med=None)
        if not learned.external:
            # RFC 4456 section 8: the originator is named once, and every reflector adds itself in front.
            assert self.node.cluster_id is not None  # noqa: S101 - the table has refused it otherwise
            attributes = replace(
                attributes,
                originator_id=attributes.originator_id or learned.router_id,
                cluster_list=(self.node.cluster_id, *attributes.cluster_list),
            )
        return replace(attributes, next_hop=self._next_hop(attributes.next_hop))

    def _next_hop(self, received: IPAddress | None) -> IPAddress | None:
        itself = {"Self": True, "Keep": False, "Auto": self.peer.external}[self.peer.next_hop_mode]
        return None if itself else received

    def _prepare(
        self, key: Attributes, attributes: Attributes, version: Version, facts: Facts, *, passed_on: bool
    ) -> _Prepared:
        if self.node.draining:
            attributes = communities.tagged(attributes, (communities.GRACEFUL_SHUTDOWN,))
        otherwise = Accepted(self._finished(attributes)) if passed_on else Refusal(Reason.NOT_PASSED_ON)
        return _Prepared(key, attributes, otherwise, filters.narrowed(self._terms[version], attributes, facts))

    def _answer(self, prepared: _Prepared, number: int, length: int) -> Outcome:
        for term in prepared.terms:
            if term.matches(number, length):
                return prepared.outcomes.get(term.words) or self._of_rule(term, prepared)
        return prepared.otherwise

    def _of_rule(self, term: filters.Term, prepared: _Prepared) -> Outcome:
        judged = filters.judged(term, prepared.attributes, to_ebgp=self.peer.external)
        outcome = Accepted(self._finished(judged.attributes), judged.rule) if judged.accepted else refused(judged)
        prepared.outcomes[term.words] = outcome
        return outcome

    def _finished(self, attributes: Attributes) -> Attributes:
        """Return the attributes as the peer is to see them."""
        if self.peer.external:
            return replace(
                attributes,
                as_path=(self.peer.local_asn, *attributes.as_path),
                local_preference=None,  # RFC 4271 section 5.1.5
                originator_id=None,  # these two are for our own AS (RFC 4456 section 8)
                cluster_list=(),
                extended_communities=tuple(
                    each for each in attributes.extended_communities if not each[0] & NON_TRANSITIVE
                ),
            )
        if self.node.draining:
            return replace(attributes, local_preference=0)  # RFC 8326 section 4.2
        if attributes.local_preference is None:
            return replace(attributes, local_preference=DEFAULT_LOCAL_PREFERENCE)
        return attributes
