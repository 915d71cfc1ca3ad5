"""The loop: gather news, compute the wish, compare with the kernel, carry out the difference, and remember why."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol, TypeVar

import structlog

from bgp.speaker import BestPath, SpeakerSettings
from felix_py.calc import sessions
from felix_py.calc.routes import Learned
from felix_py.config import Config
from felix_py.datastore.api import Datastore
from felix_py.kernel.objects import (
    DeleteRoute,
    DeleteTunnel,
    KernelRefused,
    Plan,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Report,
    Route,
    RouteKey,
)
from felix_py.model import Key, NodeName, WorkloadEndpoint
from felix_py.picture import Picture, after, refused_routes, sentences
from felix_py.state import Absent, ClusterState, Event, Present
from felix_py.turn import KernelTable, Look, look

RETRY_FIRST, RETRY_LAST = 0.1, 10.0
"""Seconds before a refused step is tried again: first, and after doubling at most. Felix retries every 10 s."""

CONVERGED_AGAIN = 1.0
"""Seconds until a turn asks again whether BGP has converged; BGP wakes us earlier when it has."""

ENDPOINT_DEADLINE = 10.0
"""Seconds that a pod's attachment may wait for its route before the runtime is told that it failed."""

CAUSES_OF_REPAIR = (
    "route deleted",
    "route changed",
    "link deleted",
    "link changed",
    "address deleted",
    "address added",
    "parameter changed",
    "events lost",
    "resync",
)
"""What others do that makes us repair; in the order in which one is named when several happened at once."""

log = structlog.get_logger()

Result = TypeVar("Result")


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
        self._converged = False
        self._address: IPv4Address | None = None

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

    # --- what others may ask

    @property
    def node_name(self) -> NodeName:
        """The name of this machine's Node resource."""
        return self.config.node_name

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the resources as they are now, one sentence each."""
        return self._datastore.faults

    def blocks(self) -> tuple[IPv4Network, ...]:
        """Return this node's blocks, lowest first."""
        return sessions.own_blocks(self.cluster, self.config.node_name)

    def pod_mtu(self) -> int:
        """Return the bytes that a pod's packet may have on its way to any other node."""
        tunnels = self.picture.desired.state.tunnels.values()
        uplink = self.picture.links.get(self.picture.desired.uplink or "")
        return min((tunnel.mtu for tunnel in tunnels), default=uplink.mtu if uplink else 1500)

    def not_ready(self) -> str | None:
        """Say in one sentence why no pod can be attached now; None when one can."""
        if self.turns == 0:
            return f"node {self.node_name} is not in sync yet; see `felixctl status`"
        if not self.blocks():
            return f"node {self.node_name} has no block; add a BlockAffinity with spec.node {self.node_name}"
        return None

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
        try:
            report = await self._in_kernel_thread(self._reconcile)
        except KernelRefused as refusal:
            log.warning("agent.refused", reason=str(refusal))
            return self._back_off()
        self._note(report, causes)
        self._answer_waiting()
        self.turns += 1
        if report.failed:
            return self._back_off()
        self._retry = RETRY_FIRST
        return self.config.resync_seconds if self._converged else CONVERGED_AGAIN

    async def planned(self) -> Plan:
        """Return what a turn would do now, without doing it."""
        return (await self._in_kernel_thread(self._look)).steps

    async def _in_kernel_thread(self, work: Callable[[tuple[Learned, ...]], Result]) -> Result:
        """Run `work` in the kernel's thread, given what BGP says at this moment."""
        learned, self._converged = self._learned(), self._speaker.converged()
        blocks = self.blocks()
        self._address = self._tunnel_address(blocks[0]) if blocks else None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, learned)

    def _back_off(self) -> float:
        pause, self._retry = self._retry, min(self._retry * 2, RETRY_LAST)
        return pause

    def _learned(self) -> tuple[Learned, ...]:
        return tuple(
            Learned(prefix, best.path.attributes.next_hop, self._speaker.peer_name(best), best.path.stale)
            for prefix, best in self._speaker.best_paths().items()
            if isinstance(best.path.attributes.next_hop, IPv4Address)
        )

    def _look(self, learned: tuple[Learned, ...]) -> Look:
        return look(
            self._kernel,
            self.cluster,
            learned,
            self.config.node_name,
            converged=self._converged,
            tunnel_address=self._address,
        )

    def _reconcile(self, learned: tuple[Learned, ...]) -> Report:
        """Read, think, act; runs in the kernel's thread."""
        seen = self._look(learned)
        for key, why in seen.picture.conflicts.items():
            if key not in self.picture.conflicts:
                log.warning("route.conflict", dst=str(key), reason=why)
        report = self._kernel.carry_out(seen.steps) if seen.steps else Report()
        self.picture = replace(
            seen.picture,
            actual=after(seen.have, report),
            refused=refused_routes(report),
            problems=sentences(report),
        )
        return report

    # --- what we say about it

    def _note(self, report: Report, causes: Counter[str]) -> None:
        now = datetime.now(UTC)
        cause = next((name for name in CAUSES_OF_REPAIR if causes[name]), None)
        for step in report.done:
            match step:
                case PutRoute(key, route, replaced):
                    self._note_route(key, route, replaced, cause)
                    self.since[key] = now
                case DeleteRoute(key, route):
                    self.since.pop(key, None)
                    log.info("route.delete", dst=str(key), route=str(route))
                case PutSysctl(path, value):
                    log.info("sysctl.put", path=path, value=value)
                case PutTunnel(tunnel):
                    log.info("tunnel.put", device=tunnel.name, local=str(tunnel.local), mtu=tunnel.mtu)
                case DeleteTunnel(name):
                    log.info("tunnel.delete", device=name)
        for why in sentences(report):
            log.warning("step.refused", reason=why)
        for key in self.picture.actual.routes:
            self.since.setdefault(key, now)

    def _note_route(self, key: RouteKey, route: Route, replaced: Route | None, cause: str | None) -> None:
        """Log one route; it is a repair where we had it in place and somebody else's doing woke us."""
        if key not in self.since or cause is None:
            log.info("route.put", dst=str(key), route=str(route), was=str(replaced) if replaced else None)
            return
        self.repairs[cause] += 1
        log.info("route.repaired", dst=str(key), route=str(route), was=str(replaced) if replaced else None, cause=cause)

    def _answer_waiting(self) -> None:
        for endpoint, done in tuple(self._waiting.values()):
            keys = [RouteKey(network) for network in endpoint.networks]
            found = [self.picture.actual.routes.get(key) for key in keys]
            if done.done():
                continue
            if all(route is not None and route.device == endpoint.interface for route in found):
                done.set_result(None)
            elif reasons := [self.picture.refused[key] for key in keys if key in self.picture.refused]:
                done.set_exception(KernelRefused(f"{endpoint.name}: {'; '.join(reasons)}"))
