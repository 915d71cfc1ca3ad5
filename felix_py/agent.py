"""The loop: gather news, compute the wish, compare with the kernel, carry out the difference, and remember why."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

import structlog

from bgp.speaker import BestPath, SpeakerSettings
from felix_py.calc import sessions
from felix_py.calc.desired import Desired, desired
from felix_py.calc.routes import Learned
from felix_py.config import Config
from felix_py.datastore.api import Datastore
from felix_py.kernel.objects import (
    DeleteRoute,
    KernelRefused,
    KernelState,
    Link,
    Plan,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Report,
    Route,
    RouteKey,
    RouteType,
)
from felix_py.kernel.reconcile import conflicts, nothing_held, plan
from felix_py.model import IPPool, Key, WorkloadEndpoint
from felix_py.state import Absent, ClusterState, Event, Present

RETRY_FIRST, RETRY_LAST = 0.1, 10.0
"""Seconds before a refused step is tried again: first, and after doubling at most. Felix retries every 10 s."""

ENDPOINT_DEADLINE = 10.0
"""Seconds that a pod's attachment may wait for its route before the runtime is told that it failed."""

DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")

log = structlog.get_logger()


class KernelTable(Protocol):
    """What the loop needs of the kernel; `kernel.netlink.Kernel` is the real one. Called in one thread only."""

    def links(self) -> dict[str, Link]:
        """Return every interface by name."""

    def table(self, links: Mapping[str, Link]) -> dict[RouteKey, Route]:
        """Return the main route table."""

    def read(self, want: KernelState, table: Mapping[RouteKey, Route]) -> KernelState:
        """Return what is ours of it, and what stands in the way."""

    def carry_out(self, plan: Plan) -> Report:
        """Do each step; one that is refused stops no other."""


class RouteSpeaker(Protocol):
    """What the loop needs of BGP; `bgp.exabgp_process.BgpService` is the real one."""

    def configure(self, settings: SpeakerSettings) -> None:
        """Hold these sessions and announce these prefixes from now on."""

    def best_paths(self) -> Mapping[IPv4Network, BestPath]:
        """Return the Loc-RIB."""

    def peer_name(self, path: BestPath) -> str:
        """Name who told us the path."""

    def converged(self) -> bool:
        """Say whether absence of a path means something by now."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the last turn saw, wanted and did: what felixctl prints.

    Attributes:
        actual: ours in the kernel after the turn.
        table: the whole main table before it, for `felixctl routes --kernel`.
        refused: by route, the kernel's reason.
        held: ours, no longer wanted, kept until BGP has converged.
    """

    desired: Desired = field(default_factory=Desired)
    actual: KernelState = field(default_factory=KernelState)
    table: Mapping[RouteKey, Route] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    refused: Mapping[RouteKey, str] = field(default_factory=dict)
    conflicts: Mapping[RouteKey, str] = field(default_factory=dict)
    held: frozenset[RouteKey] = frozenset()
    problems: tuple[str, ...] = ()


class Agent:
    """One node's agent. Everything that happens to it sets `wake`; everything it does happens in `turn`."""

    def __init__(
        self,
        config: Config,
        kernel: KernelTable,
        datastore: Datastore,
        speaker: RouteSpeaker,
        tunnel_address: Callable[[IPv4Network], IPv4Address | None],
    ) -> None:
        self.config = config
        self.cluster = ClusterState()
        self.picture = Picture()
        self.since: dict[RouteKey, datetime] = {}
        self.repairs: Counter[str] = Counter()
        self.started_at = datetime.now(UTC)
        self.turns = 0
        self._kernel = kernel
        self._datastore = datastore
        self._speaker = speaker
        self._tunnel_address = tunnel_address
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._news: list[Event] = []
        self._causes: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._waiting: dict[str, tuple[WorkloadEndpoint, asyncio.Future[None]]] = {}
        self._retry = RETRY_FIRST

    # --- what happens to us

    def wake(self, cause: str) -> None:
        """Ask for a turn; `cause` is counted if the turn finds something to repair."""
        self._causes[cause] += 1
        self._wake.set()

    def tell(self, *news: Event) -> None:
        """Add news of the cluster and ask for a turn."""
        self._news.extend(news)
        self._wake.set()

    async def put_endpoint(self, endpoint: WorkloadEndpoint) -> None:
        """Route a pod; return when its addresses are in the kernel's table.

        Raises:
            KernelRefused: with the kernel's reason, or when it took longer than ENDPOINT_DEADLINE.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting[endpoint.name] = (endpoint, done)
        self.tell(Present(Key("WorkloadEndpoint", endpoint.name), endpoint))
        try:
            await asyncio.wait_for(done, ENDPOINT_DEADLINE)
        except TimeoutError as late:
            sentence = f"{endpoint.name} was not routed within {ENDPOINT_DEADLINE:.0f} s; see `felixctl status`"
            raise KernelRefused(sentence) from late
        finally:
            self._waiting.pop(endpoint.name, None)

    async def remove_endpoint(self, name: str) -> None:
        """Forget a pod; its routes go with the next turn."""
        self.tell(Absent(Key("WorkloadEndpoint", name)))

    # --- what we do

    async def follow_datastore(self) -> None:
        """Hand the datastore's news to the loop for ever."""
        async for news in self._datastore.events():
            self.tell(*news)

    async def run(self) -> None:
        """Turn whenever something happened, and every `resync_seconds` although nothing did."""
        pause = self.config.resync_seconds
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                self._causes["resync"] += 1
            await asyncio.sleep(self.config.settle_milliseconds / 1000)
            self._wake.clear()
            pause = await self.turn()

    async def turn(self) -> float:
        """Make the kernel hold what it should; return the seconds until the next turn is due anyway."""
        news, self._news = self._news, []
        was_in_sync = self.cluster.in_sync
        self.cluster = self.cluster.after_all(news)
        if not self.cluster.in_sync:
            return self.config.resync_seconds
        if not was_in_sync:
            log.info("agent.in_sync", resources=len(self.cluster.resources))
        settings = sessions.settings(self.cluster, self.config.node_name)
        if settings is not None:
            self._speaker.configure(settings)
        causes, self._causes = self._causes, Counter()
        loop = asyncio.get_running_loop()
        try:
            report = await loop.run_in_executor(self._thread, self._reconcile, self._learned())
        except KernelRefused as refusal:
            log.warning("agent.refused", reason=str(refusal))
            return self._back_off()
        self._note(report, causes)
        self._answer_waiting()
        self.turns += 1
        if report.failed:
            return self._back_off()
        self._retry = RETRY_FIRST
        return self.config.resync_seconds

    def _back_off(self) -> float:
        pause, self._retry = self._retry, min(self._retry * 2, RETRY_LAST)
        return pause

    def _learned(self) -> tuple[Learned, ...]:
        return tuple(
            Learned(prefix, best.path.attributes.next_hop, self._speaker.peer_name(best), best.path.stale)
            for prefix, best in self._speaker.best_paths().items()
            if isinstance(best.path.attributes.next_hop, IPv4Address)
        )

    def _look(self, learned: tuple[Learned, ...]) -> tuple[Desired, KernelState, Picture]:
        """Read the kernel and compute the wish; runs in the kernel's thread."""
        links = self._kernel.links()
        table = self._kernel.table(links)
        want = desired(
            self.cluster,
            learned,
            self.config.node_name,
            links,
            tunnel_address=self._own_tunnel_address(),
            default_route=any(key.dst == DEFAULT_ROUTE for key in table),
        )
        have = self._kernel.read(want.state, table)
        return want, have, Picture(want, have, table, links, conflicts=conflicts(want.state, have))

    def _own_tunnel_address(self) -> IPv4Address | None:
        blocks = sessions.own_blocks(self.cluster, self.config.node_name)
        return self._tunnel_address(blocks[0]) if blocks else None

    def _hold(self, key: RouteKey, route: Route) -> bool:
        """Keep routes to other nodes until BGP has had time to say them again (RFC 4724 section 4.1)."""
        if self._speaker.converged() or route.type is not RouteType.UNICAST or route.via is None:
            return False
        pools = (pool.cidr for pool in self.cluster.of(IPPool))
        return any(isinstance(key.dst, IPv4Network) and key.dst.subnet_of(pool) for pool in pools)

    def plan_now(self, learned: tuple[Learned, ...]) -> Plan:
        """Return what a turn would do now, without doing it; runs in the kernel's thread."""
        want, have, _ = self._look(learned)
        return plan(want.state, have, self._hold)

    async def planned(self) -> Plan:
        """Return what a turn would do now, without doing it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.plan_now, self._learned())

    def _reconcile(self, learned: tuple[Learned, ...]) -> Report:
        """Read, think, act; runs in the kernel's thread."""
        want, have, picture = self._look(learned)
        steps = plan(want.state, have, self._hold)
        report = self._kernel.carry_out(steps) if steps else Report()
        held = {key for key, route in have.routes.items() if key not in want.state.routes and self._hold(key, route)}
        self.picture = Picture(
            want,
            after(have, report),
            picture.table,
            picture.links,
            {step.key: why for step, why in report.failed if isinstance(step, PutRoute | DeleteRoute)},
            picture.conflicts,
            frozenset(held),
            tuple(f"{type(step).__name__}: {why}" for step, why in report.failed),
        )
        return report

    def _note(self, report: Report, causes: Counter[str]) -> None:
        now = datetime.now(UTC)
        cause = next((name for name in CAUSES_OF_REPAIR if causes[name]), None)
        for step in report.done:
            match step:
                case PutRoute(key, route, replaced):
                    repaired = key in self.since and cause is not None
                    if repaired and cause is not None:
                        self.repairs[cause] += 1
                    event = "route.repaired" if repaired else "route.put"
                    log.info(
                        event, dst=str(key), route=str(route), was=str(replaced) if replaced else None, cause=cause
                    )
                    self.since[key] = now
                case DeleteRoute(key, route):
                    self.since.pop(key, None)
                    log.info("route.delete", dst=str(key), route=str(route))
                case PutSysctl(path, value):
                    log.info("sysctl.put", path=path, value=value)
                case PutTunnel(tunnel):
                    log.info("tunnel.put", device=tunnel.name, local=str(tunnel.local), mtu=tunnel.mtu)
                case _:
                    log.info("tunnel.delete", device=step.name)
        for refused, why in report.failed:
            log.warning("step.refused", step=type(refused).__name__, reason=why)
        for key in self.picture.actual.routes:
            self.since.setdefault(key, now)

    def _answer_waiting(self) -> None:
        for endpoint, done in tuple(self._waiting.values()):
            keys = [RouteKey(network) for network in endpoint.networks]
            if done.done():
                continue
            if all(self.picture.actual.routes.get(key) == self.picture.desired.state.routes.get(key) for key in keys):
                if all(key in self.picture.actual.routes for key in keys):
                    done.set_result(None)
            elif reasons := [self.picture.refused[key] for key in keys if key in self.picture.refused]:
                done.set_exception(KernelRefused(f"{endpoint.name}: {'; '.join(reasons)}"))


CAUSES_OF_REPAIR = (
    "route deleted",
    "route changed",
    "link deleted",
    "link changed",
    "address deleted",
    "address added",
    "events lost",
    "resync",
)
"""What others do that makes us repair; in the order in which one is named when several happened at once."""


def after(have: KernelState, report: Report) -> KernelState:
    """Return the state that `have` became by the steps that were done."""
    routes, tunnels, sysctls = dict(have.routes), dict(have.tunnels), dict(have.sysctls)
    for step in report.done:
        match step:
            case PutRoute(key, route, _):
                routes[key] = route
            case DeleteRoute(key, _):
                routes.pop(key, None)
            case PutTunnel(tunnel):
                tunnels[tunnel.name] = tunnel
            case PutSysctl(path, value):
                sysctls[path] = value
            case _:
                tunnels.pop(step.name, None)
    return KernelState(routes, tunnels, sysctls, have.occupants)


def cleaned(have: KernelState) -> Plan:
    """Return the steps that remove everything of ours."""
    return plan(KernelState(), have, nothing_held)
