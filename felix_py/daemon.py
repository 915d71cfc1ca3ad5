"""The agent put together from its parts: what `felix-agent` runs, with the real kernel, datastore, BGP and CNI."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import structlog

from bgp.exabgp_process import BgpService
from felix_py import __version__, tending
from felix_py.agent import Agent
from felix_py.allocations import Allocations
from felix_py.api import Api, TcpApi
from felix_py.arrival import Arrival
from felix_py.bell import Bell
from felix_py.calc.mtu import UNKNOWN
from felix_py.cni import pod_ends
from felix_py.cni.conflist import Conflist
from felix_py.cni.server import CniServer
from felix_py.config import Config
from felix_py.datastore.api import Sight, Store
from felix_py.datastore.directory import DirectoryDatastore
from felix_py.datastore.swaps import FolderSwaps
from felix_py.handlers import Handlers
from felix_py.ipam_answers import IpamAnswers
from felix_py.journal import Journal
from felix_py.kernel import sysctl
from felix_py.kernel.conntrack import Conntrack
from felix_py.kernel.guard_choice import choose
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Family
from felix_py.maintenance_file import MaintenanceFile
from felix_py.metrics import Metrics
from felix_py.model import Key, Node
from felix_py.mtu_file import MtuFile
from felix_py.news import News
from felix_py.observation import Observation
from felix_py.page.feed import Feed
from felix_py.page.gate import Reach
from felix_py.page.of_agent import AgentSource
from felix_py.page.server import PageServer
from felix_py.probes import Probes
from felix_py.state import Present
from felix_py.tending import Tending
from ipip.device import Device, TunnelRefused
from vxlan.device import Device as VxlanDevice

SWITCH_SECONDS = 0.0005
"""How long a thread computes while others wait: Python's own 5 ms would be longer than all that a pod takes, and a pod
passes through four threads."""

log = structlog.get_logger()


class Refused(Exception):  # noqa: N818 - named for what happened: the agent does not start, and the sentence says why
    """The agent cannot run here as things are."""


@contextmanager
def only_one(settings: Config) -> Iterator[None]:
    """Hold the node's lock: two agents would undo each other's work.

    Raises:
        Refused: when another agent runs, with its process ID.
    """
    path = settings.run_directory / "agent.lock"
    try:
        settings.run_directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(f"{path} cannot be opened: {error.strerror}; give a writable runDirectory") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Refused(
            f"an agent runs on this node already (process {holder}, {path}); stop it first, or ask it with felixctl"
        ) from error
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


async def run(settings: Config, journal: Journal, metrics: Metrics) -> int:
    """Be this node's agent until SIGTERM or SIGINT; everything in the kernel stays as it is then.

    Args:
        settings: of this node.
        journal: keeps what happens; it is written while the agent runs.
        metrics: count what happens.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    with only_one(settings), Parts(settings, asyncio.get_running_loop(), journal, metrics) as node:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        log.info("agent.started", node=settings.node_name, version=__version__, pid=os.getpid())
        log.info("tunnel.driver", driver=node.device.driver, reason=node.device.why)
        log.info("guard.chosen", guard=node.guard.kind, reason=node.guard.why)
        try:
            await _until(stop, node.parts())
        finally:
            await node.speaker.stop()
        log.info("agent.stopped", node=settings.node_name)
        return 0


class Parts:
    """The parts of one agent, made and tied together; as a context it closes what they hold open."""

    def __init__(self, settings: Config, loop: asyncio.AbstractEventLoop, journal: Journal, metrics: Metrics) -> None:
        self._settings, self._journal, self._metrics = settings, journal, metrics
        self.device = Device(run_directory=settings.run_directory, driver=settings.tunnel_driver)
        self._wire, self._netfilter, self.vxlan = Rtnetlink(), Nftables(), VxlanDevice()
        self.guard, self._programs = choose(settings.pod_guard, filtered=settings.netfilter), GuardPrograms()
        self._conntrack = Conntrack(lambda _: _stir_from_thread(loop, self.agent))
        parts = (self._wire, self.device, TunnelRefused, sysctl, self._conntrack)
        kernel = Kernel(*parts, families(), self._netfilter, pod_ends, self.vxlan, self._programs)
        self._news = News()
        sight = Sight(self._routes_in, lambda: self.speaker.sessions(), self._news)  # noqa: PLW0108 - made below
        self._where = store(settings, sight)
        self._store = Allocations(self._where.swaps, settings.node_name, before=settings.state_directory)
        self.speaker = BgpService(
            on_change=lambda: self.agent.bgp_changed(),  # noqa: PLW0108 - made below
            on_news=self._news.ring,
        )
        self.agent = Agent(settings, kernel, self._where.resources, self.speaker, self._store.tunnel_address)
        self.agent.guarded = self.guard.kind == "ebpf"
        self._store.addresses.own.cluster = lambda: self.agent.cluster
        self._store.addresses.own.announced = self.agent.announced
        # Pods of before are known before anything is compared: no turn happens until the datastore is in sync.
        self.agent.tell(*(Present(Key("WorkloadEndpoint", each.name), each) for each in self._store.endpoints()))
        self._standing = MaintenanceFile(settings.state_directory)
        self.agent.adjust = self._standing.applied
        self.observation = Observation(metrics, self.agent, self.speaker, self._store, self._conntrack, self._programs)
        self._mtu_file = MtuFile(settings.state_directory)
        self._arrival = None
        if settings.cni_conflist is not None:
            self._arrival = Arrival(self._routes_in, Conflist(settings.cni_conflist).put)
        self.observation.on_turn = self._turned
        self.agent.onlooker = self.observation
        self._bell = Bell(loop, lambda: self._wire.watch.fileno(), self.agent.heard)  # noqa: PLW0108 - reopened
        self._alarm = Bell(loop, self._netfilter.fileno, self._heard)
        self._knock = Bell(loop, self.vxlan.fileno, self.agent.stir)
        self.agent.rearm = self._arm

    def _turned(self) -> None:
        if self.agent.picture.desired.pod_mtu is not UNKNOWN:
            self._mtu_file.put(self.agent.pod_mtu())
        if self._arrival is not None:
            self._arrival.look()
        self._news.ring()

    def _routes_in(self, since: float = 0.0) -> bool:
        """Say whether pods are reached: what peers say is known, or they were waited for, and a turn was made."""
        own = (each for each in self.agent.cluster.of(Node) if each.name == self._settings.node_name)
        known = self.agent.turns > 0 and self.agent.picture.desired.pod_mtu is not UNKNOWN
        return known and self.speaker.arrived(since) and any(each.addresses for each in own)

    def _arm(self) -> None:
        self._bell.arm()
        self._alarm.arm()
        self._knock.arm()

    def _heard(self) -> None:
        self._netfilter.hear()
        self.agent.stir()

    def __enter__(self) -> Self:
        self._arm()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bell.disarm()
        self._alarm.disarm()
        self._knock.disarm()
        self._conntrack.close()
        self._netfilter.close()
        self._programs.close()
        self.vxlan.close()
        self._wire.close()

    def parts(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield what has to run, with its name."""
        directory, address = self._settings.run_directory, self._settings.metrics_address
        ipam = IpamAnswers(self._store, self._settings.node_name)
        devices = self.device, self.vxlan
        answers = Handlers(self.agent, self.speaker, devices, self._standing, self._news, ipam, self.guard)
        source = AgentSource(self.agent, self.speaker, answers, self._news, self._journal)
        more = {"events": self._journal.events, "page": self._news.waiting(source.document)}
        handlers, actions = {**answers.all(), **more}, answers.actions()
        # In this order: who reads on one socket that the node is in sync finds the other one open.
        yield "cni", CniServer(directory / "cni.sock", self.agent, self._store).serve()
        yield "api", Api(directory / "agent.sock", handlers, actions).serve()
        yield "journal", self._journal.run()
        if address is not None:
            probes, feed = Probes(self.observation.health, self._metrics), Feed(source)
            page = PageServer(feed, source.ask, Reach(self._settings.page))
            served = {**page.all(), **probes.all()}
            yield "metrics", TcpApi(address, served, setting="metricsAddress", admit=page.admit).serve()
            yield "page", feed.run()
        whose = self._store, self._settings.node_name, self.agent.remove_endpoint
        yield "ipam", Tending(*whose, period=self._where.tending, restored=self._where.restored).run()
        yield "datastore", self.agent.follow_datastore()
        for name, keep in self._where.keeping.items():
            yield name, keep()
        yield "loop", self.agent.run()
        if self._arrival is not None:
            yield "arrival", self._arrival.run()
        yield "bgp", self.speaker.run()


def _stir_from_thread(loop: asyncio.AbstractEventLoop, agent: Agent) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        loop.call_soon_threadsafe(agent.stir)


async def _until(stop: asyncio.Event, parts: Iterable[tuple[str, Coroutine[Any, Any, None]]]) -> None:
    """Run every part until `stop`; a part that fails takes the agent down, to be started again."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    tasks = [asyncio.create_task(work, name=name) for name, work in parts]
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
            raise Refused(f"the agent's part {task.get_name()} ended although nobody stopped it")
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)


def store(settings: Config, sight: Sight | None = None) -> Store:
    """Return the datastore that the settings name.

    Args:
        settings: of this node.
        sight: of the agent, for a datastore that tells others of it.

    Raises:
        Invalid: when it cannot be used, with what to do.
    """
    if settings.datastore == "kubernetes":
        # Large, and slow to import: only who uses it has it.
        from felix_py.datastore import kubernetes_store  # noqa: PLC0415

        return kubernetes_store.opened(settings, sight)
    folder = settings.resource_directory
    return Store(DirectoryDatastore(folder, settings.secret_directory), FolderSwaps(folder), tending.PERIOD)


def families() -> tuple[Family, ...]:
    """Return the address families that this host's kernel has."""
    return tuple(Family) if Path("/proc/net/if_inet6").exists() else (Family.IPV4,)
