"""Two racks for tunnel tests: a node and a pod in each, a router between; all namespaces, gone afterwards."""

import ctypes
import fcntl
import itertools
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal, TypeVar

from ipip import links
from ipip.device import Device, choose
from ipip.tunnel import Tunnel

DEADLINE = 15.0
"""Seconds; an emulated guest is twenty times slower than the host."""

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
ALL_PROTOCOLS = 3  # ETH_P_ALL
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # linux/sockios.h, linux/ethtool.h

NUMBERS = itertools.count()
"""Several labs may stand at once."""

Driver = Literal["kernel", "ebpf", "tun"]
Result = TypeVar("Result")


def kernel_has_ipip() -> bool:
    space = Namespace("probe")
    try:
        return space.do(choose, "auto")[0] == "kernel"
    finally:
        space.close()


def command(*words: object, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], input=text, capture_output=True, text=True, check=check)


def name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has just ended


def until(condition: Callable[[], Result], what: str) -> Result:
    """Return the first true answer; fail in words when it does not come."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {DEADLINE} s: {what}")


class Namespace:
    """A network namespace and a thread that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = f"ipip{os.getpid()}-{next(NUMBERS)}{name}"
        command("ip", "netns", "add", self.name)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._thread.submit(self._enter).result()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.name).open() as file:
            if libc.setns(file.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), f"setns {self.name}")

    def do(self, work: Callable[..., Result], *arguments: object, **named: object) -> Result:
        return self._thread.submit(work, *arguments, **named).result()

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.do(command, *words, check=check)

    def ip(self, text: str) -> None:
        self.do(command, "ip", "-batch", "-", text=text)

    def mtu(self, interface: str, size: int) -> None:
        link = self.do(links.read, interface)
        assert link is not None
        if link.mtu != size:
            self.do(links.change, link.index, mtu=size)

    def parameter(self, path: str, value: int) -> None:
        self.do(Path("/proc/sys/net/ipv4", path).write_text, str(value))

    def processes(self) -> list[int]:
        return [int(word) for word in command("ip", "netns", "pids", self.name).stdout.split()]

    def close(self) -> None:
        for process in self.processes():
            if process != os.getpid():
                os.kill(process, signal.SIGKILL)
        self._thread.shutdown()
        command("ip", "netns", "del", self.name)


@dataclass(frozen=True)
class Node:
    """A node, its pod, and the tunnel that it should have."""

    namespace: Namespace
    pod: Namespace
    device: Device
    wish: Tunnel
    directory: Path

    def put(self, **changes: Any) -> None:
        self.namespace.do(self.device.put, changed(self.wish, **changes))

    def read(self) -> Tunnel | None:
        return self.namespace.do(self.device.read, "tunl0")

    def counters(self) -> dict[str, int]:
        return dict(self.namespace.do(self.device.counters))

    def route(self) -> None:
        """Send the other rack's pods through the tunnel, as the agent's routes do."""
        link = self.namespace.do(links.read, "tunl0")
        if link is not None and self.namespace.do(links.gateways, link.index) == self.wish.routes:
            return
        for prefix, node in self.wish.routes:
            self.namespace.ip(f"route replace {prefix} via {node} dev tunl0 onlink proto 80\n")

    def carriers(self) -> list[int]:
        """The userspace driver's processes here: the first of each tunnel, which answers for all of them."""
        return [process for process in self.namespace.processes() if name_of(process) == "felix-ipip"]

    def helpers(self) -> list[int]:
        """The further processes, one for each further processor."""
        return [process for process in self.namespace.processes() if name_of(process).startswith("felix-ipip-")]


@dataclass(frozen=True)
class Racks:
    a1: Node
    b1: Node
    tor: Namespace

    def ready(self) -> "Racks":
        for node in (self.a1, self.b1):
            node.put()
            node.route()
        return self

    def reset(self) -> "Racks":
        """Undo what a test did to the wires, forget what the kernels learnt, and heal the tunnels."""
        for rack, node in ((1, self.a1), (2, self.b1)):
            self.tor.mtu(f"rack{rack}", 1500)
            node.namespace.mtu("eth0", 1500)
            for namespace in (node.namespace, node.pod):
                namespace.parameter("route/flush", 1)
            if node.read() is not None and node.device.driver == "ebpf":
                node.put(allowed=frozenset())  # with a node goes what was learnt of the path to it
        return self.ready()

    def ping(self, *options: object) -> subprocess.CompletedProcess[str]:
        return self.a1.pod.run("ping", "-c1", "-W2", *options, "10.65.2.5", check=False)


def changed(tunnel: Tunnel, **changes: Any) -> Tunnel:
    names = ("local", "mtu", "address", "routes", "allowed", "name", "up")
    return Tunnel(**{name: changes.get(name, getattr(tunnel, name)) for name in names})


def wish(rack: int) -> Tunnel:
    other = 3 - rack
    return Tunnel(
        local=IPv4Address(f"172.31.{rack}.11"),
        mtu=1480,
        address=IPv4Address(f"10.65.{rack}.1"),
        routes=frozenset({(IPv4Network(f"10.65.{other}.0/26"), IPv4Address(f"172.31.{other}.11"))}),
        allowed=frozenset({IPv4Address(f"172.31.{other}.11")}),
    )


@contextmanager
def racks(one: Driver = "tun", two: Driver = "tun") -> Iterator[Racks]:
    """Bring both racks up; their tunnels are not made yet."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipip-")))
        tor = _namespace(stack, "tor")
        nodes = [_node(stack, rack, tor, driver, directory / str(rack)) for rack, driver in ((1, one), (2, two))]
        tor.parameter("ip_forward", 1)
        yield Racks(*nodes, tor)


def _namespace(stack: ExitStack, name: str) -> Namespace:
    made = Namespace(name)
    stack.callback(made.close)
    return made


def _node(stack: ExitStack, rack: int, tor: Namespace, driver: Driver, directory: Path) -> Node:
    here, pod = _namespace(stack, f"n{rack}"), _namespace(stack, f"p{rack}")
    here.parameter("ip_forward", 1)
    here.parameter("conf/all/rp_filter", 0)
    tor.ip(f"link add rack{rack} type veth peer name eth0 netns {here.name}\n")
    tor.ip(f"addr add 172.31.{rack}.1/24 dev rack{rack}\nlink set rack{rack} up\nlink set lo up\n")
    here.ip(
        f"addr add 172.31.{rack}.11/24 dev eth0\nlink set eth0 up\nlink set lo up\n"
        f"route add default via 172.31.{rack}.1\n"
        f"link add cali0 type veth peer name eth0 netns {pod.name}\nlink set cali0 up\n"
        f"route add 10.65.{rack}.5/32 dev cali0\naddr add 169.254.1.1/32 dev cali0\n"
    )
    pod.ip(
        f"addr add 10.65.{rack}.5/32 dev eth0\nlink set eth0 up\nlink set lo up\n"
        "route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1 dev eth0\n"
    )
    device = here.do(Device, run_directory=directory, driver=driver)
    stack.callback(here.do, device.delete, "tunl0")
    return Node(here, pod, device, wish(rack), directory)


@contextmanager
def capture(namespace: Namespace, interface: str) -> Iterator[Callable[[], list[bytes]]]:
    """Collect the IPv4 packets that pass an interface; the function returns those seen so far."""
    sock = namespace.do(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    with sock:
        sock.bind((interface, ALL_PROTOCOLS))
        sock.settimeout(0)
        seen: list[bytes] = []

        def packets() -> list[bytes]:
            try:
                while True:
                    seen.append(sock.recv(1 << 16))
            except BlockingIOError:
                return [packet for packet in seen if packet[0] >> 4 == 4]

        yield packets


def raw_send(
    namespace: Namespace, source: str, destination: str, protocol: int, payload: bytes, *, service: int = 0
) -> None:
    """Send one IP packet from an address of the namespace."""
    with namespace.do(socket.socket, socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, service)
        sock.bind((source, 0))
        sock.sendto(payload, (destination, 0))


def offload_transmission(device: bytes, *, on: bool) -> None:
    """Leave checksums, and with them the cutting up, to a device, or do both before it: `ethtool -K DEVICE tx on`."""
    value = array("I", (ETHTOOL_STXCSUM, on))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", device, value.buffer_info()[0]))
