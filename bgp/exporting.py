"""What each peer is to be told, and what has to be said so that it is: Adj-RIB-Out, by difference.

What a peer is told depends on the settings and the Loc-RIB only, whatever has happened before. Our own prefixes are
told to all; what peers told us is looked at only for peers that could be told any of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from bgp.policy import Accepted, Refusal
from bgp.rib import LocRib, in_order
from bgp.session import Session
from bgp.speaker_words import SpeakerSettings
from bgp.types import FAMILY, Announce, Attributes, IPAddress, IPNetwork, Path, Withdraw


class Share(Enum):
    """How much of its Adj-RIB-Out a peer has to be told."""

    DIFFERENCE = "what is not as it was told"
    EVERYTHING = "all of it, since the wire may have forgotten what it was told"


class Difference(NamedTuple):
    """What has to be said to one peer.

    Attributes:
        new: prefixes with the attributes to announce them with.
        gone: prefixes to withdraw.
    """

    new: Mapping[IPNetwork, Attributes]
    gone: Collection[IPNetwork]


class Export:
    """What may be told, for a moment: the settings, and the best paths that peers told us, each made once for all."""

    def __init__(self, settings: SpeakerSettings, loc_rib: LocRib) -> None:
        self._settings = settings
        self._loc_rib = loc_rib
        self._own = frozenset() if settings.leaving else settings.announcements
        self._clients = {peer.address for peer in settings.peers if peer.client}
        self._paths: dict[IPNetwork, Path] = {}

    def wanted(self, session: Session, among: Collection[IPNetwork] | None = None) -> dict[IPNetwork, Attributes]:
        """Return what a peer is to be told.

        Args:
            session: with its export policy.
            among: prefixes to look at; None is all.
        """
        outcomes = self._outcomes(session, among)
        return {prefix: outcome.attributes for prefix, outcome in outcomes if isinstance(outcome, Accepted)}

    def why(self, session: Session, prefix: IPNetwork) -> Accepted | Refusal | None:
        """Say why a prefix is told to a peer, or why not; None where there is nothing to tell."""
        return next((outcome for _, outcome in self._outcomes(session, (prefix,))), None)

    def _outcomes(
        self, session: Session, among: Collection[IPNetwork] | None
    ) -> Iterator[tuple[IPNetwork, Accepted | Refusal]]:
        policy, carried = session.export_policy, session.settings.carried
        for prefix in self._own if among is None else self._own.intersection(among):
            if FAMILY[prefix.version] in carried:
                yield prefix, policy.own(prefix)
        if self._settings.leaving or not policy.passes_on:
            return
        best = self._loc_rib.best
        for prefix in tuple(best) if among is None else among:
            if prefix in best and prefix not in self._own and FAMILY[prefix.version] in carried:
                path = self._path(prefix)
                yield prefix, policy.learned(path, from_client=path.peer in self._clients)

    def _path(self, prefix: IPNetwork) -> Path:
        """Return the best path as export policy asks for it; one of a moment ago may have another peer's place."""
        path = self._paths.get(prefix)
        if path is None:
            told = self._loc_rib.best[prefix].path
            path = self._paths[prefix] = Path(
                prefix, told.peer, told.attributes, told.external, told.router_id, told.stale
            )
        return path


def differences(
    sessions: Iterable[Session],
    export: Export,
    moved: Collection[IPNetwork],
    own: Collection[IPNetwork],
    untold: Mapping[IPAddress, Share],
) -> Iterator[tuple[IPAddress, Difference]]:
    """Bring every peer's Adj-RIB-Out up to date; yield for each peer what has to be said.

    Args:
        sessions: those that the wire holds.
        export: what may be told now.
        moved: prefixes that have another best path now, or none.
        own: prefixes that have become ours, or ceased to be.
        untold: by peer, what has to be told whatever has changed.
    """
    concerned = {*moved, *own}
    for session in sessions:
        difference, table = Difference({}, ()), session.adj_rib_out
        share = untold.get(session.settings.address)
        if share is not None:
            wanted = export.wanted(session)
            new, gone = table.become(wanted)
            difference = Difference(wanted if share is Share.EVERYTHING else new, gone)
        elif own or (moved and session.export_policy.passes_on):
            difference = Difference(*table.become(export.wanted(session, concerned), concerned))
        if difference.new or difference.gone:
            yield session.settings.address, difference


def said(
    told: Iterable[tuple[IPAddress, Difference]], everybody: Collection[IPAddress]
) -> Iterator[Withdraw | Announce]:
    """Say the same to all whom it concerns at once, with as few words as can be: ExaBGP is slow, in commands above all.

    Args:
        told: by peer, what has to be said.
        everybody: the peers that the wire holds.
    """
    withdrawn: dict[tuple[IPNetwork, ...], list[IPAddress]] = {}
    announced: dict[tuple[Attributes, tuple[IPNetwork, ...]], list[IPAddress]] = {}
    for peer, difference in told:
        if difference.gone:
            withdrawn.setdefault(tuple(sorted(difference.gone, key=in_order)), []).append(peer)
        for attributes, prefixes in _alike(difference.new):
            announced.setdefault((attributes, prefixes), []).append(peer)
    for prefixes, peers in withdrawn.items():
        yield Withdraw(prefixes, _whom(peers, everybody))
    for (attributes, prefixes), peers in announced.items():
        yield Announce(prefixes, _whom(peers, everybody), attributes)


def _alike(new: Mapping[IPNetwork, Attributes]) -> Iterator[tuple[Attributes, tuple[IPNetwork, ...]]]:
    """Yield prefixes by the attributes that they share."""
    by_object: dict[int, tuple[Attributes, list[IPNetwork]]] = {}
    for prefix, attributes in new.items():
        by_object.setdefault(id(attributes), (attributes, []))[1].append(prefix)
    found: dict[Attributes, list[IPNetwork]] = {}
    for attributes, prefixes in by_object.values():
        found.setdefault(attributes, []).extend(prefixes)
    for attributes, prefixes in found.items():
        yield attributes, tuple(sorted(prefixes, key=in_order))


def _whom(peers: list[IPAddress], everybody: Collection[IPAddress]) -> tuple[IPAddress, ...]:
    return () if len(peers) == len(everybody) else tuple(peers)
