"""Network namespaces for tests of a whole node: a thread lives in each, and nothing is left when it ends.

No name is made on this machine, so that many may stand at once and a test that is killed leaves nothing behind.
"""

import ctypes
import errno
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypeVar

from builders import pod as endpoint

from felix_py.kernel import route_codec
from felix_py.kernel.messages import U32, messages
from felix_py.kernel.netlink_socket import attach_filter
from felix_py.kernel.wire import Mode, Verb
from felix_py.model import IPAddress
from felix_py.state import Present

SECONDS = 10.0
"""Seconds after which a test fails that waits for what may take a while, as a carrier."""

NEW_NETWORK = 0x40000000
ROUTE_GROUPS = 0x40 | 0x400
"""RTMGRP_IPV4_ROUTE and RTMGRP_IPV6_ROUTE, include/uapi/linux/rtnetlink.h."""

LOAD_PORT, TAKE, DROP = (0x20, 0, 0, 12), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)
"""Instructions of a filter on a socket, include/uapi/linux/bpf_common.h; the port stands at byte 12 of a message."""

Result = TypeVar("Result")


class Space:
    """A network namespace and a thread that lives in it; it ends with `close`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=unshare)
        self.thread = self.do(threading.get_native_id)
        self.path = f"/proc/{os.getpid()}/task/{self.thread}/ns/net"
        self.ip("link set lo up")

    def do(self, work: Callable[..., Result], *arguments: object, **named: object) -> Result:
        return self._thread.submit(work, *arguments, **named).result()

    def run(self, *words: object, check: bool = True, text: str | None = None) -> str:
        return self.do(_command, [str(word) for word in words], check=check, text=text)

    def ip(self, *lines: str) -> str:
        """Let somebody else do something: `ip` with these lines; it has happened when this returns."""
        return self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def parameter(self, path: str, value: str | None = None) -> str:
        """Set a parameter below /proc/sys/net, where a value is given; return it."""
        file = Path("/proc/sys/net", path)
        if value is not None:
            self.do(file.write_text, value)
        return self.do(file.read_text).strip()

    def pings(self, address: str, *options: str) -> bool:
        return self.do(_answers, ["ping", "-n", "-c1", "-W1", *options, address])

    def routes(self, *selection: str, family: int = 4) -> set[str]:
        """Return the main table as `ip route` prints it, without the kernel's own."""
        lines = self.run("ip", f"-{family}", "route", "show", *selection).splitlines()
        return {" ".join(line.split()) for line in lines if " proto kernel " not in line and "fe80::" not in line}

    def close(self) -> None:
        self._thread.shutdown()


def unshare() -> None:
    """Python 3.12 has os.unshare; this is for 3.11."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _command(words: list[str], *, check: bool, text: str | None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert not check or done.returncode == 0, f"{words} {text}: {done.stderr}{done.stdout}"
    return done.stdout


def _answers(words: list[str]) -> bool:
    return subprocess.run(words, capture_output=True, check=False, timeout=SECONDS).returncode == 0


class Seen(NamedTuple):
    """One event of the kernel's routes, as a socket of the test's own heard it; `route` is written as felixctl does."""

    verb: str
    key: str
    route: str
    replaced: bool
    port: int


class Monitor:
    """What `ip monitor route` would print, of routes outside of the local table: heard from the moment it is made.

    Args:
        only: the netlink port of whose changes are heard; None hears all.
    """

    def __init__(self, space: Space, only: int | None = None) -> None:
        self._socket = space.do(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        if only is not None:
            attach_filter(self._socket, [LOAD_PORT, (0x15, 0, 1, int.from_bytes(U32.pack(only), "big")), TAKE, DROP])
        self._socket.bind((0, ROUTE_GROUPS))
        self._space = space
        self._heard: list[Seen] = []

    def events(self, *, all_of_them: bool = True) -> list[Seen]:
        """Return everything so far, oldest first; of a flood perhaps not all, where that is no matter."""
        names = dict(self._space.do(socket.if_nameindex))
        while select.select([self._socket], [], [], 0)[0]:
            try:
                heard = self._socket.recv(1 << 16)
            except OSError as error:
                if all_of_them or error.errno != errno.ENOBUFS:
                    raise
                continue
            for kind, flags, _, port, body in messages(heard):
                entry = route_codec.decode(route_codec.normalised(body), names)
                if entry is not None and entry[0].table == 254 and not route_codec.is_link_affair(body):
                    verb = "add" if kind == Verb.NEW_ROUTE else "delete"
                    replaced = bool(flags >> 8 << 8 & Mode.REPLACE)
                    self._heard.append(Seen(verb, str(entry[0]), str(entry[1]), replaced, port))
        return list(self._heard)

    def of(self, prefix: str) -> list[Seen]:
        return [seen for seen in self.events() if seen.key == prefix]

    def close(self) -> None:
        self._socket.close()


class Pod:
    """A pod's namespace, its veth plugged into a node as a container runtime leaves it."""

    def __init__(self, node: Space, interface: str, *addresses: str, ipv6: bool = True) -> None:
        self.space = Space()
        if not ipv6:  # before there is an interface: one that is up announces itself by neighbour discovery at once
            self.space.parameter("ipv6/conf/default/disable_ipv6", "1")
        self.interface = interface
        self.node = node
        self.addresses: tuple[IPAddress, ...] = tuple(map(ip_address, addresses))
        self.plug()

    def plug(self) -> None:
        """Make the veth and set the pod's side up; IPv4 finds its gateway by ARP, as in a pod of another runtime."""
        self.node.ip(
            f"link add {self.interface} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {self.space.path}",
            f"link set {self.interface} up",
        )
        self.space.ip("link set eth0 up")
        for address in self.addresses:
            if address.version == 4:
                self.space.ip(
                    "route add 169.254.1.1 dev eth0 scope link",
                    "route add default via 169.254.1.1 dev eth0",
                    f"addr add {address}/32 dev eth0",
                )
            else:
                self.space.ip(f"addr add {address}/128 dev eth0 nodad")

    @property
    def index(self) -> int:
        return self.node.do(socket.if_nametoindex, self.interface)

    def present(self, name: str, on: str = "a1") -> Present:
        """Return what the datastore says of it."""
        return endpoint(name, on, self.interface, f"{self.addresses[0]}/32")
