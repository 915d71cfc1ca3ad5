"""What a turn at the kernel has to know, and what is known after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bgp.speaker_words import NextHops
from felix_py.calc.desired import Desired
from felix_py.calc.hearsay import Hearsay
from felix_py.kernel.interfaces import LinkChange
from felix_py.kernel.kernel import News, Report
from felix_py.kernel.objects import Route, RouteKey
from felix_py.model import IPAddress, WorkloadEndpoint
from felix_py.state import ClusterState

NO_NEXT_HOPS = NextHops({})
"""What the speaker takes for granted before anybody has told it anything."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything that a turn depends on, but for the kernel itself.

    Attributes:
        learned: BGP's best paths.
        converged: whether the absence of a path means something by now; until then remote routes stay.
        selecting: whether best paths are worth acting upon; until then they change no route that was there before.
        tunnel_addresses: the tunnels' own, from this node's blocks; at most one of each version of IP.
        by_datastore: routes to other nodes come from the datastore, since BGP is off.
        objects: routes to other nodes go through next-hop objects where enough share one.
        filtered: this node has a packet filter of ours.
        guarded: our programs guard pods' interfaces in its place.
        next_hops: those of BGP's paths; the wish does not depend on them, the turn says which of them can be reached.
    """

    cluster: ClusterState
    learned: Hearsay = field(default_factory=Hearsay)
    converged: bool = True
    tunnel_addresses: tuple[IPAddress, ...] = ()
    objects: bool = False
    filtered: bool = False
    next_hops: frozenset[IPAddress] = field(default=frozenset(), compare=False)
    selecting: bool = True
    by_datastore: bool = False
    guarded: bool = False

    @property
    def settled(self) -> tuple[object, ...]:
        """Everything but the cluster and what BGP says."""
        filters = self.filtered, self.guarded
        return self.converged, self.tunnel_addresses, self.objects, filters, self.by_datastore


@dataclass(frozen=True, slots=True)
class Done:
    """What one turn saw and did.

    Attributes:
        links: interfaces that were found to have changed.
        resync_cause: why everything was read back; None where it was not.
        resync_seconds, apply_seconds: how long reading back and writing took.
        next_hops: which of BGP's next hops can be reached; one object until one of them changes.
        next_due: when there will be something to do although nothing happens, on the loop's clock; None for never.
        broken: why the kernel could not be read; nothing was written then.
        held: nothing was written, since BGP is to choose anew first: other next hops can be reached than it knew of.
    """

    wish: Desired
    news: News
    links: tuple[LinkChange, ...] = ()
    report: Report = field(default_factory=Report)
    resync_cause: str | None = None
    resync_seconds: float = 0.0
    apply_seconds: float = 0.0
    next_hops: NextHops = NO_NEXT_HOPS
    next_due: float | None = None
    broken: str | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """A new pod that is guarded, and not routed yet.

    Attributes:
        index: of its interface.
        routes: that it is to have.
        turn: how many turns there had been.
    """

    pod: WorkloadEndpoint
    index: int
    routes: Mapping[RouteKey, Route]
    turn: int
