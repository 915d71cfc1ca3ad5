"""A node in a network namespace: the real agent's loop on the real kernel, real veths to real pods; told what to know.

Every namespace lives in a thread and ends with it, so nothing is left behind. The datastore and BGP are what the test
says; all else is what `felix-agent` runs.
"""

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, TypeVar

from builders import block, node, pool
from spaces import SECONDS, Monitor, Pod, Space
from structlog.testing import capture_logs
from told import SilentDatastore, ToldSpeaker

from felix_py.agent import Agent
from felix_py.config import Config
from felix_py.daemon import Bell
from felix_py.kernel import sysctl
from felix_py.kernel.conntrack import Conntrack, Table
from felix_py.kernel.conntrack_table import KernelTable
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.messages import BUFFER
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.kernel.wire import Family, Wire
from felix_py.model import IpipMode, Key, NodeName
from felix_py.state import Absent, Event, InSync
from ipip.device import Device, TunnelRefused
from ipip.tunnel import Asked
from vxlan.device import Device as VxlanDevice

SOON = 1.0
"""Seconds in which whatever an event tells has to be done."""

CLUSTER: tuple[Event, ...] = (
    node("a1", "172.31.1.11/24"),
    node("a2", "172.31.1.12/24"),
    pool(mode=IpipMode.NEVER),
    block("a1", "10.65.0.0/26"),
    InSync(),
)
"""What most tests of one node begin with; the lines are what `ip route` then shows of it."""

DEFAULT = "default via 172.31.1.1 dev eth0"
BLACKHOLE = "blackhole 10.65.0.0/26 proto 80"
REMOTE = "10.65.1.0/26 via 172.31.1.12 dev eth0 proto 80 onlink"
POD = "10.65.0.2 dev cali1 proto 80 scope link"

Result = TypeVar("Result")


class Settings(NamedTuple):
    """What a node may be made of other than usual.

    Attributes:
        wrap: puts something between the engine and the real wire.
        event_buffer: bytes of queue for events.
        open_table: the table of tracked connections.
        guard: what guards pods' interfaces, where `netfilter` is on.
    """

    name: str = "a1"
    wrap: Callable[[Wire], Wire] = lambda wire: wire
    event_buffer: int = BUFFER
    open_table: Callable[[], Table] = KernelTable
    resync_seconds: float = 60.0
    tunnel_address: str | None = None
    netfilter: bool = True
    driver: Asked = "auto"
    bgp: bool = True
    guard: Literal["ebpf", "nftables"] = "ebpf"


class RouteNode:
    """One agent in a `Space`; `start` and `stop` as often as a test likes.

    Attributes:
        space: where it lives.
        log: what was logged since the node was made, by whatever runs in this process.
        failure: what the loop ended with; None while it runs.
    """

    def __init__(self, space: Space, directory: Path, log: list[Any], settings: Settings) -> None:
        self.space = space
        self.log = log
        self.speaker = ToldSpeaker()
        self.agent: Agent
        self.kernel: Kernel
        self.conntrack: Conntrack
        self.rtnetlink: Rtnetlink
        self.device: Device
        self.vxlan: VxlanDevice
        self.failure: BaseException | None = None
        self.settings = settings
        self._directory = directory
        self._told: list[Event] = []
        self._ahead = 0.0
        self._turn = threading.Condition()
        self._turns = 0
        self.task: asyncio.Task[None]
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread: threading.Thread | None = None

    # --- the agent's life

    def start(self, *events: Event) -> None:
        """Start an agent that knows these and all that was told before."""
        self._told += events
        self.failure = None
        started: Future[None] = Future()
        # A thread inherits the namespace of the one that starts it.
        self._thread = self.space.do(threading.Thread, target=self._live, args=(started,))
        self.space.do(self._thread.start)
        started.result(SECONDS)
        self.settle()

    def _live(self, started: "Future[None]") -> None:
        try:
            asyncio.run(self._run(started))
        except BaseException as failure:  # noqa: BLE001 - looked at by the test
            self.failure = failure
            if not started.done():
                started.set_exception(failure)
        self._notify()

    async def _run(self, started: "Future[None]") -> None:
        settings = self.settings
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.rtnetlink = Rtnetlink(event_buffer=settings.event_buffer)
        self.device = Device(self._directory, settings.driver)
        self.conntrack = Conntrack(
            lambda _: self._loop.call_soon_threadsafe(self.agent.stir) and None, open_table=settings.open_table
        )
        wire = settings.wrap(self.rtnetlink)
        netfilter = Nftables()
        parts = (wire, self.device, TunnelRefused, sysctl, self.conntrack)
        self.vxlan = VxlanDevice()
        programs = GuardPrograms()
        self.kernel = Kernel(*parts, tuple(Family), netfilter, vxlan=self.vxlan, guard=programs)
        config = Config(
            NodeName(settings.name),
            run_directory=self._directory,
            resync_seconds=settings.resync_seconds,
            netfilter=settings.netfilter,
            bgp=settings.bgp,
        )
        address = settings.tunnel_address
        self.agent = Agent(
            config,
            self.kernel,
            SilentDatastore(),
            self.speaker,
            lambda block: IPv4Address(address) if address and block.version == 4 else block[1],
            self._clock,
        )
        self.agent.guarded = settings.guard == "ebpf"
        # After `reopen` it is another one.
        bell = Bell(self._loop, lambda: self.rtnetlink.watch.fileno(), self.agent.stir)  # noqa: PLW0108

        def heard() -> None:
            netfilter.hear()
            self.agent.stir()

        bells = (bell, Bell(self._loop, netfilter.fileno, heard), Bell(self._loop, self.vxlan.fileno, self.agent.stir))

        def turned() -> None:
            for each in bells:
                each.arm()
            self._notify()

        self.agent.rearm = turned
        for each in bells:
            each.arm()
        self.agent.tell(*self._told)
        started.set_result(None)
        self.task = asyncio.create_task(self.agent.run())
        parts = [self.task, asyncio.create_task(self._stop.wait())]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            for each in bells:
                each.disarm()
            self.agent._kernel.thread.shutdown()
            self.conntrack.close()
            self.rtnetlink.close()
            netfilter.close()
            programs.close()
            self.vxlan.close()

    def _clock(self) -> float:
        return time.monotonic() + self._ahead

    def _notify(self) -> None:
        with self._turn:
            self._turns += 1
            self._turn.notify_all()

    def in_loop(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run something in the loop's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def stop(self) -> None:
        """End the agent; everything in the kernel stays."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(SECONDS)
            assert not self._thread.is_alive()

    # --- what it is told

    def tell(self, *events: Event) -> None:
        self._told += events
        self._loop.call_soon_threadsafe(self.agent.tell, *events)

    def forget(self, kind: str, name: str) -> None:
        self.tell(Absent(Key(kind, name)))

    def learn(self, routes: Mapping[str, str | None]) -> None:
        """Let BGP tell these next hops by prefix; None withdraws."""
        for prefix, next_hop in routes.items():
            if next_hop is None:
                self.speaker.paths.pop(ip_network(prefix), None)
                continue
            attributes = SimpleNamespace(next_hop=ip_address(next_hop))
            path = SimpleNamespace(attributes=attributes, stale=False, peer=next_hop)
            self.speaker.paths[ip_network(prefix)] = SimpleNamespace(path=path, equal=())
        self._loop.call_soon_threadsafe(self.agent.bgp_changed)

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass for the agent, at once."""
        self._ahead += seconds
        self._loop.call_soon_threadsafe(self.agent.stir)

    # --- what it did

    def until(self, holds: Callable[[], object], seconds: float = SOON) -> bool:
        """Look after each turn until something holds; say whether it did in time."""
        end = time.monotonic() + seconds
        while True:
            turns = self._turns
            if holds():
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            with self._turn:
                self._turn.wait_for(lambda seen=turns: self._turns != seen, min(left, 0.1))

    def settle(self) -> None:
        """Wait until a turn has begun after this call, and ended with nothing to do at once."""
        for _ in range(2):  # the first one may have been under way already
            turns = self._turns
            self._must_live()
            self._loop.call_soon_threadsafe(self.agent.stir)
            with self._turn:
                assert self._turn.wait_for(lambda seen=turns: self._turns != seen, SECONDS), "no turn"
        self._must_live()

    def _must_live(self) -> None:
        if self.failure is not None:
            raise AssertionError(f"the agent ended: {self.failure!r}") from self.failure

    def loud(self) -> list[Any]:
        """Return what was logged above info."""
        return [event for event in self.log if event["log_level"] not in ("debug", "info")]

    def events(self, name: str) -> list[Any]:
        return [event for event in self.log if event["event"] == name]


class Lab(ExitStack):
    """Makes nodes and pods, and ends them all."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = self.enter_context(capture_logs())
        self._directory = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="node-")))

    def space(self) -> Space:
        made = Space()
        self.callback(made.close)
        return made

    def node(self, *events: Event, space: Space | None = None, start: bool = True, **settings: Any) -> RouteNode:
        """Make a node, with `eth0` and a router behind it unless the space is given."""
        wanted = Settings(**settings)
        made = RouteNode(space or self.uplinked(), self._directory / wanted.name, self.log, wanted)
        self.callback(self._end, made)
        if start:
            made.start(*events)
        return made

    def uplinked(self) -> Space:
        """Return a namespace with eth0, 172.31.1.11/24, and a default route to a router that answers."""
        space, router = self.space(), self.space()
        space.ip(
            f"link add eth0 type veth peer name rack1 netns {router.path}",
            "addr add 172.31.1.11/24 dev eth0",
            "link set eth0 up",
        )
        router.ip("addr add 172.31.1.1/24 dev rack1", "link set rack1 up")
        space.ip("route add default via 172.31.1.1")
        return space

    def _end(self, node: RouteNode) -> None:
        node.stop()
        if hasattr(node, "device"):
            node.space.do(node.device.delete, "tunl0")  # its process would outlive us

    def pod(self, node: Space | RouteNode, interface: str, *addresses: str, ipv6: bool = True) -> Pod:
        made = Pod(node.space if isinstance(node, RouteNode) else node, interface, *addresses, ipv6=ipv6)
        self.callback(made.space.close)
        return made

    def monitor(self, node: Space | RouteNode, only: int | None = None) -> Monitor:
        made = Monitor(node.space if isinstance(node, RouteNode) else node, only)
        self.callback(made.close)
        return made


@contextmanager
def lab() -> Iterator[Lab]:
    """Make a lab and end it."""
    with Lab() as made:
        yield made


def one_pod(made: Lab, **settings: Any) -> tuple[RouteNode, Pod]:
    """Return a node with a pod, its block, and the block of another node."""
    space = made.uplinked()
    pod = made.pod(space, "cali1", "10.65.0.2")
    running = made.node(*CLUSTER, pod.present("default/web"), space=space, **settings)
    running.learn({"10.65.1.0/26": "172.31.1.12"})
    assert running.until(lambda: space.routes() == {POD, BLACKHOLE, DEFAULT, REMOTE}), space.routes()
    running.settle()
    return running, pod


def changes(monitor: Monitor) -> list[tuple[str, str]]:
    return [(seen.verb, seen.key) for seen in monitor.events()]
