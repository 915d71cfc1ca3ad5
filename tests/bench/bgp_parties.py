"""Who takes part in benchmarks of BGP: a wire between two namespaces, and BIRD, GoBGP and our agent at its ends."""

import contextlib
import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

import yaml

from felix_py.ctl import client

SOURCE, TARGET = "172.16.0.1", "172.16.0.2"
"""Our addresses in both namespaces, of 172.16.0.0/12, where all next hops lie."""

PATIENCE = 120.0
CLONE_NEWNET = 0x40000000
RTMGRP_IPV4_ROUTE = 0x40
RTM_NEWROUTE, RTM_GETROUTE, RTA_DST, RTM_F_FIB_MATCH, NLM_F_REQUEST = 24, 26, 1, 0x2000, 1

FIRST_BLOCK, BLOCK_LENGTH = 10 << 24, 26
"""Where the blocks that are told begin, and what they are."""

SAMPLE = 100
"""Routes of a table that the kernel is asked for before it counts all."""

STILL, BREATH = 0.1, 1_000_000
"""Seconds after which a program that does nothing more is taken to rest, and nanoseconds of a core that are nothing."""


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def until(condition: Callable[[], object], what: str, pause: float = 0.005, within: float = PATIENCE) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(pause)


def block(number: int) -> str:
    """Return the /26 of this number."""
    return f"{IPv4Address(FIRST_BLOCK + number * 64)}/{BLOCK_LENGTH}"


def next_hop(number: int) -> str:
    return str(IPv4Address("172.17.0.1") + number)


class Wire:
    """Two namespaces with a veth pair between them, and the programs that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.target = f"bs{os.getpid()}", f"bt{os.getpid()}"
        self._programs: list[subprocess.Popen[str]] = []

    def up(self) -> None:
        for name in (self.source, self.target):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "eth0", "netns", self.source, "type", "veth", "peer", "name", "eth0", "netns", self.target)
        for name, address in ((self.source, SOURCE), (self.target, TARGET)):
            ip("-n", name, "addr", "add", f"{address}/12", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        self._resident = self.start(self.target, "sleep", "infinity")

    def down(self) -> None:
        for program in tuple(reversed(self._programs)):
            self.stop(program, signal.SIGKILL)
        for name in (self.source, self.target):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def start(self, namespace: str, *command: str | Path, **environment: str) -> subprocess.Popen[str]:
        with (self.folder / "programs.log").open("a") as log:
            program = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._programs.append(program)
        return program

    def stop(self, program: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
        program.send_signal(number)
        program.wait()
        for pipe in (program.stdin, program.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was still to be written has nobody to read it
                    pipe.close()
        self._programs.remove(program)

    def routes(self) -> int:
        """Return how many prefixes the kernel of the target has; read from a process that lives there."""
        text = Path(f"/proc/{self._resident.pid}/net/fib_triestat").read_text()
        return int(text.partition("Prefixes:")[2].split()[0])


@contextlib.contextmanager
def wire(folder: Path) -> Iterator[Wire]:
    made = Wire(folder)
    try:
        made.up()
        yield made
    finally:
        made.down()


class Bird:
    """BIRD at one end, spoken to on its control socket."""

    def __init__(self, wire: Wire, name: str, namespace: str, configuration: str) -> None:
        self.wire, self._socket = wire, wire.folder / f"{name}.ctl"
        path = wire.folder / f"{name}.conf"
        path.write_text(configuration)
        self._socket.unlink(missing_ok=True)  # a BIRD that was killed leaves it
        self.program = wire.start(namespace, "bird", "-f", "-c", path, "-s", self._socket)
        self._talk = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        until(lambda: self._talk.connect_ex(str(self._socket)) == 0, "BIRD listens")
        self._read()

    def ask(self, command: str) -> str:
        self._talk.sendall(command.encode() + b"\n")
        return self._read()

    def _read(self) -> str:
        text = ""
        while True:
            text += self._talk.recv(65536).decode()
            last = text.rstrip("\n").rpartition("\n")[2]
            if text.endswith("\n") and len(last) > 4 and last[:4].isdigit() and last[4] == " ":
                return text

    def established(self) -> bool:
        return "Established" in self.ask("show protocols all far")

    def end(self) -> None:
        self._talk.close()
        self.wire.stop(self.program)


HEAD = """
log stderr { error, fatal };
router id %(address)s;
protocol device { scan time 60; }
protocol bgp far {
  local %(address)s as 64512; neighbor %(other)s as 64512;
  connect delay time 1; connect retry time 1; error wait time 1, 1; strict bind yes; %(more)s
  ipv4 { import all; export all; next hop keep; };
}
"""


def telling(routes: list[str]) -> str:
    """Return a BIRD at the source that tells these routes as soon as their protocol is enabled."""
    lines = "\n".join(routes)
    return (
        HEAD % {"address": SOURCE, "other": TARGET, "more": ""}
        + f"protocol static table4 {{ disabled; ipv4; {lines} }}\n"
    )


def telling_one_by_one(count: int, beside: int = 0) -> str:
    """Return a BIRD at the source with so many routes, each in a protocol of its own, `beside` others told at once."""
    protocols = [
        f"protocol static one{number} {{ disabled; ipv4; route {block(number)} via {SOURCE}; }}\n"
        for number in range(count)
    ]
    if beside:
        lines = "\n".join(f"route {block(number)} via {SOURCE};" for number in range(count, count + beside))
        protocols.append(f"protocol static table4 {{ ipv4; {lines} }}\n")
    head = HEAD % {"address": SOURCE, "other": TARGET, "more": ""}
    return head.replace("next hop keep", "next hop self") + "".join(protocols)


def shared(count: int) -> list[str]:
    return [f"route {block(number)} via {next_hop(0)};" for number in range(count)]


def own(count: int) -> list[str]:
    """Four blocks of each node, each node with a next hop and a community of its own."""
    return [
        f"route {block(number)} via {next_hop(number // 4)} {{ bgp_community.add((64512, {number // 4})); }};"
        for number in range(count)
    ]


def bird_target(*, kernel: bool = True) -> str:
    text = HEAD % {"address": TARGET, "other": SOURCE, "more": "passive on;"}
    text += "protocol direct { ipv4; }\n"  # without it no next hop is found, and each route is an `unreachable`
    return text + ("protocol kernel { scan time 600; ipv4 { export all; }; }\n" if kernel else "")


GOBGP = f"""
[global.config]
  as = 64512
  router-id = "{TARGET}"
  local-address-list = ["{TARGET}"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "{SOURCE}"
    peer-as = 64512
  [neighbors.transport.config]
    passive-mode = true
"""


class Gobgp:
    """GoBGP at the target; it keeps a RIB, and nothing else."""

    def __init__(self, wire: Wire) -> None:
        self._wire, path = wire, wire.folder / "gobgp.toml"
        path.write_text(GOBGP)
        self.program = wire.start(wire.target, "gobgpd", "-f", path, "--log-level", "error")

    def prefixes(self) -> int:
        """Ask it for the size of its RIB; the client takes some 40 ms of a core, and walks the RIB."""
        command = ["ip", "netns", "exec", self._wire.target, "gobgp", "-j", "global", "rib", "summary"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return int(json.loads(done.stdout).get("num_destination", 0)) if done.returncode == 0 else 0

    def end(self) -> None:
        self._wire.stop(self.program)


class Rest:
    """Says when a program came to rest, and asks it for nothing while it works."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._since = time.monotonic(), cpu_nanoseconds(process)

    def since(self) -> float | None:
        """Return when it came to rest; None while it works, or has not rested for long enough to tell."""
        now, used = time.monotonic(), cpu_nanoseconds(self._process)
        if used - self._since[1] > BREATH:
            self._since = now, used
        return self._since[0] if now - self._since[0] > STILL else None


def document(kind: str, name: str, **spec: object) -> dict[str, object]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


class Felix:
    """Our agent at the target."""

    def __init__(self, wire: Wire, peers: list[str], *, cluster_id: str | None = None, **peer: object) -> None:
        self._wire, self.folder = wire, wire.folder / "felix"
        for name in ("resources", "run", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        reflector = {"routeReflectorClusterID": cluster_id} if cluster_id else {}
        documents = [
            document("Node", "target", bgp={"ipv4Address": f"{TARGET}/12"} | reflector),
            document("IPPool", "pool", cidr="10.0.0.0/8", ipipMode="Never"),
            document("BlockAffinity", "own", node="target", cidr="10.200.0.0/26", state="confirmed"),
            document("BGPConfiguration", "default", asNumber=64512, nodeToNodeMeshEnabled=False),
            *(
                document("BGPPeer", f"peer-{number}", peerIP=address, asNumber=64512, **peer)
                for number, address in enumerate(peers)
            ),
        ]
        (self.folder / "resources" / "all.yaml").write_text(yaml.safe_dump_all(documents))
        environment = {
            "FELIX_NODENAME": "target",
            "FELIX_RESOURCEDIRECTORY": str(self.folder / "resources"),
            "FELIX_RUNDIRECTORY": str(self.folder / "run"),
            "FELIX_STATEDIRECTORY": str(self.folder / "state"),
            "FELIX_METRICSADDRESS": "none",
        }
        self.program = wire.start(wire.target, sys.executable, "-m", "felix_py", "run", **environment)

    def established(self, count: int = 1) -> bool:
        try:
            peers = client.get(self.folder / "run" / "agent.sock", "bgp", "peers")["peers"]
        except client.Unreachable:
            return False
        return sum(peer["state"] == "Established" for peer in peers) >= count

    def processes(self) -> list[int]:
        """Return the agent and its child."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children").read_text().split()
        return [self.program.pid, *map(int, children)]

    def end(self) -> None:
        self._wire.stop(self.program)
        (self.folder / "run" / "agent.sock").unlink(missing_ok=True)  # the next one has not begun until it is there


def status(process: int, field: str) -> float:
    """Return a size in MiB."""
    return int(Path(f"/proc/{process}/status").read_text().partition(f"{field}:")[2].split()[0]) / 1024


def cpu_nanoseconds(process: int) -> int:
    """Return what all threads have used that still run."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{process}/task").glob("*/schedstat"))


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def route_socket(namespace: str, groups: int = 0) -> socket.socket:
    """Open a route socket in a namespace, subscribed to these groups of events."""
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as here, Path(f"/run/netns/{namespace}").open() as there:
        if library.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sock.bind((0, groups))
        finally:
            library.setns(here.fileno(), CLONE_NEWNET)
    return sock


class Arrival:
    """Says when the kernel has a table, without taking a part of the machine for it.

    To count 100,000 routes takes the kernel 8 ms, and whoever counts again and again takes half of a core from those
    who are measured. So the kernel is asked for some routes, one after the other, and counts when it has all of them.
    """

    def __init__(self, wire: Wire, count: int) -> None:
        """Wait for the first `count` blocks.

        Args:
            wire: at whose target they arrive.
            count: how many.
        """
        self._wire, self._wanted = wire, wire.routes() + count
        self._socket = route_socket(wire.target)
        self._missing = random.Random(count).sample(range(count), min(count, SAMPLE))  # noqa: S311 - any will do

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def complete(self) -> bool:
        while self._missing:
            if not self._has(self._missing[-1]):
                return False
            self._missing.pop()
        return self._wire.routes() >= self._wanted

    def _has(self, number: int) -> bool:
        """Say whether there is a route to exactly this block: RTM_GETROUTE with RTM_F_FIB_MATCH, rtnetlink(7)."""
        address = struct.pack(">I", FIRST_BLOCK + number * 64)
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
        body += struct.pack("=HH", 8, RTA_DST) + address
        self._socket.send(struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST, number, 0) + body)
        answer = self._socket.recv(1 << 16)
        return struct.unpack_from("=H", answer, 4)[0] == RTM_NEWROUTE and answer[17] == BLOCK_LENGTH


class RouteEvents:
    """The kernel's own account of routes in a namespace."""

    def __init__(self, namespace: str) -> None:
        self._socket = route_socket(namespace, RTMGRP_IPV4_ROUTE)

    def wait(self, within: float) -> float:
        """Return when the next event came."""
        if not select.select([self._socket], [], [], within)[0]:
            raise AssertionError(f"no route event within {within} s")
        at = time.monotonic()
        self._socket.recv(1 << 16)
        return at

    def forget(self) -> None:
        while select.select([self._socket], [], [], 0.02)[0]:
            self._socket.recv(1 << 16)
