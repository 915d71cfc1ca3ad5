"""A wire with nodes of ours and BGP daemons on it, each in a namespace of its own, made as a scenario asks for them."""

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

from daemon_bird import Bird
from daemon_frr import Frr
from daemon_gobgp import Gobgp
from daemons import PATIENCE, Announcements, Daemon, Neighbour, Setup, until
from felix_node import FelixNode
from pings import Pings
from relay import Relay

from bgp.types import IPAddress, IPNetwork
from felix_py.lab import namespaces

KINDS: Mapping[str, Callable[[str, Path], Daemon]] = {"bird": Bird, "frr": Frr, "gobgp": Gobgp}

N1, N2, N3 = IPv4Address("10.9.0.11"), IPv4Address("10.9.0.12"), IPv4Address("10.9.0.13")
D1, D2, D3 = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2"), IPv4Address("10.9.0.3")
RELAY, ROUTER = IPv4Address("10.9.0.100"), IPv4Address("10.9.0.254")
FAR_ROUTER, FAR = IPv4Address("10.9.1.254"), IPv4Address("10.9.1.1")
ADDRESSES = {"n1": N1, "n2": N2, "n3": N3, "d1": D1, "d2": D2, "d3": D3, "relay": RELAY, "far": FAR}

TOR_AS = 64500
BLOCKS = {"n1": IPv4Network("10.65.1.0/26"), "n2": IPv4Network("10.65.2.0/26")}
D1_BLOCK, D2_BLOCK, D3_BLOCK = (IPv4Network(f"10.65.{number}.0/26") for number in (9, 10, 11))


def six(address: IPv4Address) -> IPv6Address:
    """Return a machine's IPv6 address: fd09:0::11 where its IPv4 address is 10.9.0.11."""
    return IPv6Address(f"fd09:{address.packed[2]}::{address.packed[3]}")


_NUMBERS = itertools.count()
"""Of labs: several run at the same time."""


class Lab:
    """What one scenario uses. Whatever it made is ended and removed by `down`, also after a failure.

    Attributes:
        kind: which daemon plays the part of the third party.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.notes: list[str] = []
        self._directory = directory
        self._prefix = f"fi{os.getpid():x}-{next(_NUMBERS)}"
        self._machines: list[str] = []
        self._daemons: dict[str, Daemon] = {}
        self._nodes: dict[str, FelixNode] = {}
        self._relays: list[Relay] = []

    # --- what a scenario asks for

    def daemon(self, name: str = "d1", asn: int = TOR_AS, *neighbours: Neighbour, **setup: object) -> Daemon:
        """Return a daemon that runs, with these neighbours."""
        self._machine(name)
        if name not in self._daemons:
            self._daemons[name] = KINDS[self.kind](self.namespace(name), self._folder(name))
        wanted = Setup(**{"address": ADDRESSES[name], "asn": asn, "neighbours": neighbours, **setup})  # type: ignore[arg-type]
        self._daemons[name].start(wanted)
        return self._daemons[name]

    def felix(self, name: str, *documents: dict[str, object]) -> FelixNode:
        """Return a node of ours that runs with these resources."""
        made = self.stopped_felix(name)
        made.start(*documents)
        return made

    def stopped_felix(self, name: str) -> FelixNode:
        """Return a node of ours that does not run yet."""
        self._machine(name)
        if name not in self._nodes:
            address = ADDRESSES[name]
            self._nodes[name] = FelixNode(name, address, self.namespace(name), self._folder(name))
        return self._nodes[name]

    def relay(self, number: int, *, towards: IPAddress) -> Relay:
        """Return somebody in the middle, at an address of his own, who passes on to `towards` what he is told."""
        self._machine("relay")
        address = RELAY + number
        if number:
            self.ip("relay", "address", "add", f"{address}/24", "dev", "eth0")
        with namespaces.inside(self.namespace("relay")):
            self._relays.append(Relay(address, towards))
        return self._relays[-1]

    def note(self, fact: str) -> None:
        """Keep a figure or a remark for the table of results."""
        self.notes.append(fact)

    def together(self, *actions: Callable[[], object]) -> None:
        """Do several things at the same time."""
        with ThreadPoolExecutor(len(actions)) as pool:
            for done in [pool.submit(action) for action in actions]:
                done.result()

    def version(self) -> str:
        """Return what the daemon calls itself; nothing where none runs."""
        return next((each.version() for each in self._daemons.values()), "")

    # --- the wire

    def namespace(self, name: str) -> str:
        """Return the namespace of a machine."""
        return f"{self._prefix}-{name}"

    def ip(self, name: str, *words: str) -> str:
        """Run `ip` on a machine."""
        done = subprocess.run(["ip", "-n", self.namespace(name), *words], check=True, capture_output=True, text=True)
        return done.stdout

    @contextlib.contextmanager
    def route_events(self, name: str, *, both: bool = False) -> Iterator[Callable[[], str]]:
        """Watch the kernel tables of a machine; give a function that returns all that has happened to them since.

        Args:
            name: of the machine.
            both: those of IPv6, too.
        """
        record, marker = self._directory / f"{name}-events", "198.51.100.0/24"
        command = ["ip", *(() if both else ("-4",)), "-n", self.namespace(name), "monitor", "route"]
        with record.open("wb") as output, subprocess.Popen(command, stdout=output) as watcher:

            def at_work() -> bool:
                self.ip(name, "route", "add", "blackhole", marker)
                self.ip(name, "route", "del", "blackhole", marker)
                return marker in record.read_text()

            try:
                until(at_work, "ip monitor sees what we do")
                yield lambda: "\n".join(line for line in record.read_text().splitlines() if marker not in line)
            finally:
                watcher.kill()

    def pings(self, name: str, target: IPAddress) -> Pings:
        """Ping somebody from a machine, a hundred times a second, for as long as the context lasts."""
        return Pings(self.namespace(name), target, self._folder(name) / f"pings-{next(_NUMBERS)}")

    def _folder(self, name: str) -> Path:
        folder = self._directory / name
        folder.mkdir(exist_ok=True)
        return folder

    def _machine(self, name: str) -> None:
        """Make a machine and put it on the wire, unless it is there."""
        if name in self._machines:
            return
        if not self._machines:
            self._namespace("wire")
            self.ip("wire", "link", "add", "br0", "type", "bridge")
            self.ip("wire", "link", "set", "br0", "up")
        if name == "far" and "router" not in self._machines:
            self._machine("router")
        self._namespace(name)
        if name == "far":
            self._far()
            return
        self._plug(name, ROUTER if name == "router" else ADDRESSES[name])

    def _namespace(self, name: str) -> None:
        self._machines.append(name)
        subprocess.run(["ip", "netns", "add", self.namespace(name)], check=True, capture_output=True)
        self.ip(name, "link", "set", "lo", "up")

    def _plug(self, name: str, address: IPv4Address) -> None:
        wire, here = self.namespace("wire"), self.namespace(name)
        command = ["ip", "link", "add", "eth0", "netns", here, "type", "veth", "peer", "name", name, "netns", wire]
        subprocess.run(command, check=True, capture_output=True)
        self.ip("wire", "link", "set", name, "master", "br0", "up")
        self._address(name, "eth0", address)
        if name != "router":
            self.ip(name, "route", "add", "10.9.1.0/24", "via", str(ROUTER))

    def _far(self) -> None:
        """One more wire behind the router, with a machine at its end."""
        far, router = self.namespace("far"), self.namespace("router")
        command = ["ip", "link", "add", "eth0", "netns", far, "type", "veth", "peer", "name", "eth1", "netns", router]
        subprocess.run(command, check=True, capture_output=True)
        self._address("router", "eth1", FAR_ROUTER)
        self._address("far", "eth0", FAR)
        self.ip("far", "route", "add", "default", "via", str(FAR_ROUTER))
        with namespaces.inside(router):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _address(self, name: str, device: str, address: IPv4Address) -> None:
        self.ip(name, "address", "add", f"{address}/24", "dev", device)
        self.ip(name, "address", "add", f"{six(address)}/64", "dev", device, "nodad")
        self.ip(name, "link", "set", device, "up")

    def down(self) -> None:
        """End and remove everything."""
        for relay in self._relays:
            relay.close()
        for node in self._nodes.values():
            node.kill()
        for daemon in self._daemons.values():
            daemon.kill()
        for name in reversed(self._machines):
            subprocess.run(["ip", "netns", "del", self.namespace(name)], check=False, capture_output=True)


def stays(condition: Callable[[], object], seconds: float, what: str) -> None:
    """See that a condition holds all the time for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"no longer: {what}"
        time.sleep(0.02)


__all__ = ["PATIENCE", "Announcements", "IPNetwork", "Lab", "stays", "until"]
