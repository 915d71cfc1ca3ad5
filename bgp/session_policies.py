"""The policies of a session, from the settings of the speaker, and what the two sides have agreed on."""

from collections.abc import Mapping
from dataclasses import replace

from bgp.export_policy import ExportPolicy
from bgp.peering import PeerSettings
from bgp.policy import ImportPolicy
from bgp.policy_facts import NodeFacts, PeerFacts, peer_facts
from bgp.session import Session
from bgp.speaker_words import SpeakerSettings
from bgp.types import IPAddress

EXTENDED_NEXT_HOP = ("nexthop", "extended next hop")
"""How the capability of RFC 8950 begins in words."""


class Policies:
    """What policy has to know of a node, as far as it matters to each direction: what does not changes nothing."""

    def __init__(self, settings: SpeakerSettings, interfaces: Mapping[IPAddress, str]) -> None:
        self._settings = settings
        self._interfaces = interfaces
        sources = {peer.source for peer in settings.peers}
        own = frozenset({settings.local_address, settings.local_address6, *sources} - {None})
        self._inward = NodeFacts(
            asn=settings.asn,
            router_id=settings.router_id,
            addresses=frozenset(each for each in own if each is not None),
            accept_within=settings.accept_within,
            own=settings.announcements,
            lends=settings.lends,
            cluster_id=settings.cluster_id,
        )
        self._outward = replace(
            self._inward,
            accept_within=(),
            own=frozenset(),
            communities=settings.communities,
            draining=settings.draining,
        )

    def new(self, peer: PeerSettings) -> tuple[ImportPolicy, ExportPolicy]:
        """Return the policies of a session that has agreed on nothing yet."""
        facts = peer_facts(peer, self._settings.asn, self._settings.filters)
        inward, outward = self._node(self._inward, facts), self._node(self._outward, facts)
        return ImportPolicy(inward, facts), ExportPolicy(outward, facts)

    def renew(self, session: Session) -> tuple[bool, bool]:
        """Give a session new policies where they would say something else now; return which: import, export."""
        facts = peer_facts(
            session.settings,
            self._settings.asn,
            self._settings.filters,
            extended_next_hop=_extended_next_hop(session),
        )
        inward, outward = self._node(self._inward, facts), self._node(self._outward, facts)
        changed = (
            (session.import_policy.node, session.import_policy.peer) != (inward, facts),
            (session.export_policy.node, session.export_policy.peer) != (outward, facts),
        )
        if changed[0]:
            session.import_policy = ImportPolicy(inward, facts)
            session.told.clear()
        if changed[1]:
            session.export_policy = ExportPolicy(outward, facts)
        return changed

    def _node(self, node: NodeFacts, peer: PeerFacts) -> NodeFacts:
        """Add what only some filters ask for: what changes there concerns no other session."""
        return replace(node, interfaces=self._interfaces) if peer.asks_for_interface else node


def _extended_next_hop(session: Session) -> bool:
    """Say whether IPv4 prefixes may come with an IPv6 next hop: both sides have offered it (RFC 8950)."""
    offers = (session.open_sent, session.open_received)
    return all(
        offer is not None and any(each.startswith(EXTENDED_NEXT_HOP) for each in offer.capabilities) for offer in offers
    )
