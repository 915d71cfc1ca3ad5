"""One turn at the kernel: take what happened, read back what is doubtful, compute the wish, write the difference.

The wish is computed again only when something that it depends on has changed; a route that somebody deleted is put
back without it, however many others there are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import TypeAlias

from felix_py.calc import endpoints, netfilter, routes
from felix_py.calc.desired import amended, desired, view_of
from felix_py.calc.hearsay import Hearsay
from felix_py.calc.pods import Moment, repodded
from felix_py.calc.reachability import Reachability
from felix_py.calc.transition import NOTHING, Former, Transition
from felix_py.kernel.engine import Intention
from felix_py.kernel.guarding import Newcomer
from felix_py.kernel.kernel import Kernel, News, Report
from felix_py.kernel.listening import Listening
from felix_py.kernel.objects import IPV6, Link, Route, RouteKey, Step
from felix_py.kernel.wire import WireBroken
from felix_py.kernel.work import NewRoutes
from felix_py.knowledge import NO_NEXT_HOPS, Admitted, Done, Knowledge
from felix_py.model import IPNetwork, IPPool, Node, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState
from felix_py.turn_answers import Answers

DEFAULT_ROUTE = RouteKey(IPv4Network("0.0.0.0/0"))

PART = 6000
"""Prefixes of a table that are made ready before the kernel gets any; the next ones are while it writes, which takes it
more than twice as long, so that each part may be twice as large as the one before."""

TABLE = 1000
"""Prefixes from which on news are a table that arrives: some of it may be written while the rest is on its way."""

LONGEST = 1.0
"""Seconds after which a turn asks for no more of a table: others wait for their turn as well."""


_Known: TypeAlias = tuple[tuple[object, ...], int, Former, Moment]
"""What the wish follows from besides what BGP says; pods change only the last."""


class Turns(Answers):
    """The turns of one node; everything here runs in the kernel's thread."""

    def __init__(self, kernel: Kernel, me: NodeName, clock: Callable[[], float]) -> None:
        super().__init__(kernel, clock)
        self.next_hops = NO_NEXT_HOPS
        self._me = me
        self._known: _Known | None = None
        self._others: tuple[int, dict[RouteKey, Route]] = (-1, {})
        self._heard: object = None  # the mark of what the wish knows of BGP
        self._selected = False  # the wish acts upon best paths
        self._held = Hearsay()  # what a turn heard that wrote nothing
        self._left: set[RouteKey] | None = None  # by the agent before this one, and BGP has not said anything of it
        self._reachability: tuple[tuple[object, ...], Reachability] | None = None
        self._broken = False
        self._listening = Listening(kernel)
        self._turns = 0
        self._sources: tuple[IPv4Address | None, IPv6Address | None] = None, None
        self._transition = Transition()
        self._former: tuple[ClusterState | None, Former] = None, NOTHING

    def turn(
        self, knowledge: Knowledge, further: Callable[[], Hearsay | None] = lambda: None, *, hold: bool = False
    ) -> Done:
        """Make the kernel hold what it should.

        Args:
            knowledge: of everything but the kernel.
            further: asked while a table is on its way to the kernel: returns what BGP says by now, None where that is
                nothing new, or not all that is.
            hold: write nothing where BGP would choose otherwise if it knew which next hops can be reached.
        """
        try:
            if self._broken:
                self.kernel.reopen()
            done = self._turn(knowledge, further, hold=hold)
        except WireBroken as broken:
            self.kernel.must_read("socket failed")
            done = Done(self.wish, News(), next_hops=self.next_hops, broken=str(broken))
        self._broken = done.broken is not None
        return done

    def receive(self) -> None:
        """Receive what has happened, for `listen` to take; nobody need be kept away from the kernel meanwhile."""
        if not self._broken:
            self._listening.receive()

    def is_calm(self) -> bool:
        """Say whether all that was heard needs no turn: at most pods have come that are guarded and routed."""
        calm = self._known is not None and self._known[1] == self.kernel.routes.books.others_version
        return calm and not (self._broken or self._listening.failed) and self.kernel.is_calm(self._clock())

    def listen(self) -> bool:
        """Take some of what has happened, for the next turn, so that pods may come in between; say if there is more."""
        # Where the socket has failed, the turn opens it anew first.
        return not self._broken and self._listening.some(self._clock())

    def _turn(self, knowledge: Knowledge, further: Callable[[], Hearsay | None], *, hold: bool) -> Done:
        kernel, started = self.kernel, self._clock()
        self._turns += 1
        news = self._listening.all(started)
        cause, links = kernel.resync_cause, kernel.resync() if kernel.resync_cause else ()
        read = self._clock()
        known = self.next_hops.obstacles.keys()
        self._judge(knowledge)
        held = hold and self.next_hops.obstacles.keys() != known
        if held:
            self._held = knowledge.learned.upon(self._held)
        else:
            self._think(knowledge, further)
        thought = self._clock()
        report = Report() if held else kernel.make(self.wish.state, thought)
        written = self._clock()
        return Done(
            self.wish,
            news,
            (*news.links, *links),
            report,
            cause,
            read - started if cause else 0.0,
            written - thought,
            self.next_hops,
            written if kernel.routes.is_due(written) else self._next_due,
            report.routes.broken,
            held,
        )

    @property
    def _next_due(self) -> float | None:
        due = (self.kernel.next_due, self._transition.next_due)
        return min((each for each in due if each is not None), default=None)

    def admit(self, pods: Sequence[tuple[WorkloadEndpoint, int]]) -> list[Admitted | None]:
        """Guard new pods, each with the index of its interface, ahead of any turn; None for those that take one."""
        basis, wish, found = self.wish.basis, self.wish, list[Admitted | None]([None] * len(pods))
        if basis is None or self._broken or self.kernel.resync_cause is not None:
            return found
        mtu = wish.pod_mtu.value
        links = {pod.interface: Link(pod.interface, index, mtu, up=True, running=True) for pod, index in pods}
        view = replace(basis.remotes.view, links=links)
        for position, (pod, index) in enumerate(pods):
            wanted = {key: each.route for key, each in routes.workloads(view, (pod,), *self._sources)}
            if wanted and wish.chosen.keys().isdisjoint(wanted):
                found[position] = Admitted(pod, index, wanted, self._turns)
        if wish.state.netfilter is not None:
            new = [_newcomer(each.pod, links[each.pod.interface]) for each in found if each is not None]
            if new and not self.kernel.admit(new):
                return [None] * len(pods)
        return found

    def attach(self, several: Sequence[Admitted]) -> list[Mapping[RouteKey, Route] | None]:
        """Route new pods that are guarded, of which the loop is told next.

        Returns:
            of each its routes, which stand in the kernel now; None where that takes a turn.
        """
        # A turn that came in between took each for an interface of nobody.
        late = [each for each in several if each.turn != self._turns]
        again = iter(self.admit([(each.pod, each.index) for each in late]) if late else ())
        pods = [each if each.turn == self._turns else next(again) for each in several]
        ready = [each for each in pods if each is not None]
        new = [NewRoutes(each.routes, each.pod.interface, each.index) for each in ready]
        done = {
            each.pod.name
            for each, well in zip(ready, self.kernel.routes.attach(new, self._clock()), strict=True)
            if well
        }
        return [each.routes if each is not None and each.pod.name in done else None for each in pods]

    def plan(self, knowledge: Knowledge) -> tuple[tuple[Step, ...], tuple[Intention, ...]]:
        """Return what a turn would do now: parameters and tunnels as steps, routes as intentions; writes nothing.

        Raises:
            WireBroken: when the kernel could not be read.
        """
        self._turns += 1
        self.kernel.catch_up(self._clock())
        if self.kernel.resync_cause:
            self.kernel.resync()
        self._think(knowledge)
        steps = self.kernel.plan(self.wish.state)
        return steps, tuple(self.kernel.routes.intentions())

    def _think(self, knowledge: Knowledge, further: Callable[[], Hearsay | None] | None = None) -> None:
        """Compute the wish, as far as anything that it depends on has changed since the last time.

        Args:
            knowledge: of everything but the kernel.
            further: as `turn` has it; whoever gives it has everything made afterwards, so that routes may go ahead.
        """
        books = self.kernel.routes.books
        heard, self._held = knowledge.learned.upon(self._held), Hearsay()
        former = self._still(knowledge.cluster)
        moment = Moment(knowledge.cluster, self.kernel.links)
        known = (knowledge.settled, books.others_version, former, moment)
        if knowledge.converged and (known == self._known or self._repod(known)):
            if heard.before is self._heard:
                self._amend(heard, further)
                return
            if heard.mark is self._heard:
                return
        # A node that waits for BGP, for ever where its own address is refused, is asked again every second.
        if known == self._known and heard.mark is self._heard and knowledge.selecting == self._selected:
            return
        underlay, own = self._underlay(), knowledge.tunnel_addresses
        ours = self.kernel.ours() if not knowledge.converged else {}
        kept = self._kept(ours, heard.paths, selecting=knowledge.selecting)
        self.wish = desired(
            knowledge.cluster,
            heard.paths,
            self._me,
            self.kernel.links,
            tunnel_address=next((each for each in own if isinstance(each, IPv4Address)), None),
            tunnel_address6=next((each for each in own if isinstance(each, IPv6Address)), None),
            former=former,
            by_datastore=knowledge.by_datastore,
            default_route=any(key.dst == DEFAULT_ROUTE.dst for key in (*underlay, *ours)),
            underlay=underlay,
            kept=kept,
            kept_next_hops=self.kernel.objects() if kept else {},
            deferred=not knowledge.selecting,
            objects=knowledge.objects,
            filtered=knowledge.filtered,
            guarded=knowledge.guarded,
        )
        self._known, self._heard, self._selected = known, heard.mark, knowledge.selecting
        felix = knowledge.cluster.felix(self._me)
        self._sources = felix.device_route_source, felix.device_route_source6

    def _repod(self, known: _Known) -> bool:
        """Take pods into the wish that have come and gone; False where more has changed than pods alone."""
        before = self._known
        if before is None or known[:-1] != before[:-1]:
            return False
        found = repodded(self.wish, before[-1], known[-1], self._me, self._underlay())
        if found is not None:
            self.wish, self._known = found, known
        return found is not None

    def _amend(self, heard: Hearsay, further: Callable[[], Hearsay | None] | None) -> None:
        """Take news of BGP into the wish; while the kernel writes one part of a table, the next is made ready."""
        if further is None or not self._may_go_ahead(heard):
            self._heard = None
            self.wish = amended(self.wish, heard.news)
            self._heard = heard.mark
            return
        until = self._clock() + LONGEST
        news: Hearsay | None = heard
        while news is not None:
            self._heard = None
            for part in news.parts(PART):
                self.wish = amended(self.wish, part)
                self.kernel.begin(self.wish.state, self._clock())
            self._heard = news.mark
            news = self._next(further, until)

    def _may_go_ahead(self, heard: Hearsay) -> bool:
        """Say whether this is a table, whose routes may be written before all of it is known."""
        basis = self.wish.basis
        # What a tunnel or a next-hop object has to know of a route comes before the route.
        alone = basis is not None and basis.tunnel is None and not basis.vxlans and not basis.objects
        return alone and heard.size >= TABLE and self.kernel.only_routes(self.wish.state)

    def _next(self, further: Callable[[], Hearsay | None], until: float) -> Hearsay | None:
        """Return more of a table, if any comes before the kernel has written what there is of it; and nothing else."""
        routes = self.kernel.routes
        while not routes.books.due and self._clock() < until:
            news = further()
            if news is not None or not routes.wait():
                return news
        return None

    def _kept(
        self, ours: Mapping[RouteKey, Route], paths: Collection[IPNetwork], *, selecting: bool
    ) -> Mapping[RouteKey, Route]:
        """Return what stays as the agent before this one left it, since BGP has not said anything else of it yet."""
        if self._left is None:
            self._left = set(ours)
        if selecting and self._left:
            self._left.difference_update(map(RouteKey, paths))
        return {key: route for key, route in ours.items() if key in self._left}

    def _still(self, cluster: ClusterState) -> Former:
        """Return what is still as it was before pools changed; the same object until something of it changes."""
        now, due = self._clock(), self._transition.next_due
        if cluster is not self._former[0] or (due is not None and now >= due):
            found = self._transition.take((pool for pool in cluster.of(IPPool) if not pool.disabled), now)
            self._former = cluster, found if found != self._former[1] else self._former[1]
        return self._former[1]

    def _judge(self, knowledge: Knowledge) -> None:
        """Say which next hops can be reached, as far as anything that this depends on has changed."""
        node = knowledge.cluster.node(self._me) or Node(self._me)
        links, underlay = self.kernel.links, self._underlay()
        basis = (node, links, self._others[0])
        if self._reachability is None or basis != self._reachability[0]:
            self._reachability = basis, Reachability(view_of(node, links, underlay))
        found = self._reachability[1].of(knowledge.next_hops)
        if found is not self.next_hops and found != self.next_hops:
            self.next_hops = found

    def _underlay(self) -> Mapping[RouteKey, Route]:
        """Return the routes of others; the same object until one of them changes."""
        version = self.kernel.routes.books.others_version
        if self._others[0] != version:
            self._others = version, self.kernel.others()
        return self._others[1]


def _newcomer(pod: WorkloadEndpoint, link: Link) -> Newcomer:
    sources = frozenset(network.network_address for network in pod.networks)
    six = any(network.version == IPV6 for network in pod.networks)
    return Newcomer(link, sources, partial(netfilter.admitted, pod=pod), partial(_parameters, pod.interface, six=six))


def _parameters(interface: str, *, six: bool) -> Mapping[str, str]:
    return dict(endpoints.of_workload(interface, ipv6=six))
