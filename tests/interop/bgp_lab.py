"""Two nodes and a router with BIRD on one wire, each in a namespace of its own, for tests of the BGP part."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bgp import peering
from bgp.decision import BestPath
from bgp.exabgp_process import BgpService
from bgp.path_report import RouteReport
from bgp.peering import MeshNode, PeerSettings
from bgp.report import PeerReport
from bgp.speaker import SpeakerSettings
from bgp.types import IPNetwork, SessionState

NODE_AS, TOR_AS = 64512, 64500
TOR = IPv4Address("10.9.0.1")
NODES = {"n1": IPv4Address("10.9.0.11"), "n2": IPv4Address("10.9.0.12")}
BLOCKS = {"n1": IPv4Network("10.65.1.0/26"), "n2": IPv4Network("10.65.2.0/26")}
TOR_BLOCK = IPv4Network("10.65.9.0/26")
POOL = IPv4Network("10.65.0.0/16")

PATIENCE = 15.0
"""Seconds until a condition that should hold soon is given up; these machines are shared."""


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


async def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Wait for a condition; fail with what was waited for."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)


class Bird:
    """BIRD on the router; started and stopped as often as a test likes."""

    def __init__(self, namespace: str, directory: Path) -> None:
        self._namespace, self._directory = namespace, directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, configuration: str, *, recover: bool = False) -> None:
        """Start it; with `recover` it keeps to graceful restart's rules for one who has restarted."""
        (self._directory / "bird.conf").write_text(configuration)
        command = ["ip", "netns", "exec", self._namespace, "bird", "-f", "-c", str(self._directory / "bird.conf")]
        command += ["-s", str(self._directory / "bird.ctl"), *(["-R"] if recover else [])]
        with (self._directory / "bird.log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, and see that it has ended."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def ask(self, *words: str) -> str:
        """Ask it something, as birdc does."""
        command = ["birdc", "-s", str(self._directory / "bird.ctl"), *words]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout

    def has(self, prefix: IPv4Network, source: str = "") -> bool:
        """Say whether it has a route to a prefix, from one protocol or from any."""
        return f"[{source}" in self.ask("show", "route", str(prefix))

    def session_up(self, protocol: str) -> bool:
        """Say whether a session is established and nothing in it is left over from before."""
        shown = self.ask("show", "protocols", "all", protocol)
        return "Established" in shown and "restart active" not in shown


def bird_configuration(*, node_as: int = NODE_AS, address: IPv4Address = TOR, n2: bool = True) -> str:
    """Return what the router does: eBGP with the nodes, and four routes of its own."""
    nodes = {name: node for name, node in NODES.items() if n2 or name == "n1"}
    sessions = "".join(
        f"protocol bgp {name} from node {{ local {address} as {TOR_AS}; neighbor {node} as {node_as}; }}\n"
        for name, node in nodes.items()
    )
    return f"""
log stderr all;
router id {address};
protocol device {{ }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
protocol static lab_static {{
  ipv4;
  route {TOR_BLOCK} blackhole;
  route 0.0.0.0/0 blackhole;
  route 192.0.2.0/24 blackhole;
  route 10.65.1.32/28 blackhole;
}}
template bgp node {{
  graceful restart on;
  strict bind yes;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ipv4 {{ import all; export all; }};
}}
{sessions}"""


class Lab:
    """The namespaces, and what a test runs in them."""

    def __init__(self, directory: Path) -> None:
        self.prefix = f"fb{os.getpid()}"
        self.bird = Bird(f"{self.prefix}tor", directory)
        self._birds = [self.bird]
        self._directory = directory

    def up(self) -> None:
        """Make the namespaces, and a bridge on the router that joins them."""
        for name in ("tor", *NODES):
            ip("netns", "add", self.prefix + name)
            ip("-n", self.prefix + name, "link", "set", "lo", "up")
        tor = f"{self.prefix}tor"
        ip("-n", tor, "link", "add", "br0", "type", "bridge")
        ip("-n", tor, "addr", "add", f"{TOR}/24", "dev", "br0")
        ip("-n", tor, "link", "set", "br0", "up")
        for name, address in NODES.items():
            node = self.prefix + name
            ip("link", "add", "eth0", "netns", node, "type", "veth", "peer", "name", name, "netns", tor)
            ip("-n", tor, "link", "set", name, "master", "br0", "up")
            ip("-n", node, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", node, "link", "set", "eth0", "up")

    def another_bird(self, address: IPv4Address) -> Bird:
        """Give the router one more address, and a BIRD for it: one BIRD holds one session with a neighbour."""
        ip("-n", f"{self.prefix}tor", "addr", "add", f"{address}/24", "dev", "br0")
        directory = self._directory / str(address)
        directory.mkdir()
        self._birds.append(Bird(f"{self.prefix}tor", directory))
        return self._birds[-1]

    def down(self) -> None:
        """End BIRD and remove the namespaces, as far as they were made."""
        for bird in self._birds:
            bird.kill()
        for name in ("tor", *NODES):
            subprocess.run(["ip", "netns", "del", self.prefix + name], check=False, capture_output=True)

    def inside(self, name: str) -> tuple[str, ...]:
        """Return what to put before a command to run it on a node."""
        return ("ip", "netns", "exec", self.prefix + name)

    @contextlib.contextmanager
    def squatter(self, name: str) -> Iterator[Callable[[], None]]:
        """Have a program listen on the BGP port of a node; give a function that ends it."""
        # It takes no connection, or it would end with the first one, which may be the router's.
        listen = f"import signal, socket; s = socket.create_server(('{NODES[name]}', 179)); print(flush=True); "
        listen += "signal.pause()"
        with subprocess.Popen([*self.inside(name), sys.executable, "-c", listen], stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            program.stdout.readline()
            try:
                yield program.kill
            finally:
                program.kill()

    def send_rubbish(self, name: str, to: IPv4Address) -> None:
        """Connect from a node to the BGP port of another, and send what is no BGP message."""
        send = (
            f"import socket; s = socket.create_connection(('{to}', 179)); s.sendall(b'GET / HTTP/1.1' * 9); s.recv(99)"
        )
        subprocess.run([*self.inside(name), sys.executable, "-c", send], check=False, timeout=PATIENCE)

    @contextlib.contextmanager
    def program(self, command: list[str]) -> Iterator[Callable[[], None]]:
        """Run a program; give a function that ends it with SIGKILL."""
        with subprocess.Popen(command) as program:
            try:
                yield program.kill
            finally:
                program.kill()

    @contextlib.contextmanager
    def route_events(self) -> Iterator[Callable[[], str]]:
        """Watch the router's kernel table; give a function that returns all that has happened to it since."""
        record, marker = self._directory / "monitor.txt", "198.51.100.0/24"
        with (
            record.open("wb") as output,
            subprocess.Popen([*self.inside("tor"), "ip", "-4", "monitor", "route"], stdout=output) as watcher,
        ):
            try:
                # The watcher is at work when it has seen what we do ourselves.
                deadline = time.monotonic() + PATIENCE
                while marker not in record.read_text():
                    assert time.monotonic() < deadline, "ip monitor sees nothing"
                    ip("-n", f"{self.prefix}tor", "route", "add", "blackhole", marker)
                    ip("-n", f"{self.prefix}tor", "route", "del", "blackhole", marker)
                    time.sleep(0.02)
                yield lambda: "\n".join(line for line in record.read_text().splitlines() if marker not in line)
            finally:
                watcher.kill()


def tor(**changes: object) -> PeerSettings:
    """Return a node's session with the router."""
    wanted = {"address": TOR, "asn": TOR_AS, "name": "tor", "kind": "global"} | changes
    return PeerSettings(**wanted)  # type: ignore[arg-type]


def settings(name: str, *explicit: PeerSettings, mesh: bool = True, blocks: Iterable[str] = ()) -> SpeakerSettings:
    """Return what a node does: mesh with the other one, and the peers that are named."""
    nodes = [MeshNode(each, address, NODE_AS) for each, address in NODES.items()]
    own = next(node for node in nodes if node.name == name)
    return SpeakerSettings(
        local_address=NODES[name],
        router_id=NODES[name],
        asn=NODE_AS,
        listen_port=179,
        peers=peering.sessions(own, nodes if mesh else (), explicit),
        announcements=frozenset({BLOCKS[name], *map(IPv4Network, blocks)}),
        accept_within=(POOL,),
    )


def way(best: BestPath | None) -> tuple[object, ...] | None:
    """Return what packets notice of a best path."""
    return None if best is None else (best.path, best.equal)


class Node:
    """A service on a node, and which of the prefixes that it once had it was ever without.

    Attributes:
        strayed: prefixes of which the changes that the service told ever came to something else than its best paths.
    """

    def __init__(self, lab: Lab, name: str, wrapper: tuple[str, ...] = ()) -> None:
        self.service = BgpService(on_change=self._note, wrapper=(*lab.inside(name), *wrapper))
        self.lost: set[IPNetwork] = set()
        self.strayed: set[IPNetwork] = set()
        self._had: set[IPNetwork] = set()
        self._followed: dict[IPNetwork, BestPath | None] = {}

    def _note(self) -> None:
        changes, best = self.service.changes(), self.service.best_paths()
        self._followed = dict(best) if changes is None else {**self._followed, **dict(changes)}
        self.strayed |= {
            each for each in {*self._followed, *best} if way(self._followed.get(each)) != way(best.get(each))
        }
        self.lost |= self._had - best.keys()
        self._had |= best.keys()

    def peer(self, address: IPv4Address = TOR) -> PeerReport:
        return next(each for each in self.service.peers() if each.settings.address == address)

    def established(self, address: IPv4Address = TOR) -> bool:
        return self.peer(address).state is SessionState.ESTABLISHED

    def route(self, prefix: str, address: IPv4Address = TOR) -> RouteReport | None:
        wanted = IPv4Network(prefix)
        return next((each for each in self.service.routes(address) if each.prefix == wanted), None)

    def settled(self) -> bool:
        """Say whether every session is up and every peer has said everything."""
        return bool(self.service.peers()) and all(each.end_of_rib for each in self.service.peers())


@contextlib.asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Run the services of nodes; end them, and fail with whatever they failed with."""
    tasks = [asyncio.create_task(node.service.run()) for node in nodes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError) and isinstance(outcome, BaseException):
                raise outcome
    assert not any(node.strayed for node in nodes), "what is told of changes comes to the best paths"


@contextlib.asynccontextmanager
async def one_beside_bird(lab: Lab) -> AsyncIterator[Node]:
    """Run BIRD, and one node that has a session with it and with nobody else."""
    lab.bird.start(bird_configuration(n2=False))
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(), mesh=False))
    async with running(one):
        yield one


@contextlib.asynccontextmanager
async def two_beside_bird(lab: Lab) -> AsyncIterator[tuple[Node, Node]]:
    """Run BIRD, and two nodes that have sessions with it and with each other."""
    lab.bird.start(bird_configuration())
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(settings("n1", tor()))
    two.service.configure(settings("n2", tor()))
    async with running(one, two):
        yield one, two
