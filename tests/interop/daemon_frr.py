"""FRR's bgpd as a `Daemon`: alone, without zebra and a kernel table, told and asked over its own command socket."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any, ClassVar

from daemons import PATIENCE, Announcements, Daemon, Neighbour, Seen, SeenSession, Setup, address, numbers, until

from bgp.types import Attributes, Family, IPAddress, IPNetwork, Origin

BGPD = Path("/usr/lib/frr/bgpd")
OK, WARNING = 0, 1
"""Status bytes of an answer; FRR's lib/command.h."""

END = b"\0\0\0"
"""Ends an answer, and the status byte follows; FRR's lib/vty.c."""

WELL_KNOWN = {
    "noExport": (65535, 65281),
    "noAdvertise": (65535, 65282),
    "noExportSubconfed": (65535, 65283),
    "gracefulShutdown": (65535, 0),
}
"""FRR's names, https://www.iana.org/assignments/bgp-well-known-communities."""


@dataclass
class Frr(Daemon):
    """bgpd in a namespace."""

    kind: ClassVar[str] = "frr"
    _vty: socket.socket | None = None

    def kill(self) -> None:
        super().kill()
        self._hang_up()

    def stop(self) -> None:
        super().stop()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._vty is not None:
            self._vty.close()
        self._vty = None

    # --- being told

    def start(self, setup: Setup) -> None:
        self._setup = setup
        own = self.directory / "vty"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        configuration = own / "bgpd.conf"
        configuration.write_text("".join(f"{line}\n" for line in (*_head(setup), *self._networks(self.said))))
        # -S: it stays root, who alone may enter a test's folder.
        command: list[str | Path] = [BGPD, "-S", "-Z", "-f", configuration, "--vty_socket", own, "-i", own / "pid"]
        listen = (word for address in setup.addresses for word in ("-l", str(address)))
        self.process.start(*command, "-P", "0", *listen)
        self._ask("enable")

    def announce(self, announcements: Announcements) -> None:
        self.said |= announcements
        self._configure(*self._networks(announcements))

    def withdraw(self, *prefixes: IPNetwork) -> None:
        for prefix in prefixes:
            self.said.pop(prefix, None)
        lines = (
            line for each in prefixes for line in (f"address-family ipv{each.version} unicast", f"no network {each}")
        )
        self._configure(f"router bgp {self.setup.asn}", *lines)

    def shut(self, address: IPAddress, message: str) -> None:
        self._neighbour(f"neighbor {address} shutdown message {message}")

    def open(self, address: IPAddress) -> None:
        self._neighbour(f"no neighbor {address} shutdown")

    def ask_again(self, address: IPAddress) -> None:
        self._ask(f"clear bgp {address} in")

    # --- being asked

    def version(self) -> str:
        done = subprocess.run([BGPD, "--version"], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()[0].replace("bgpd version", "FRR")

    def session(self, address: IPAddress) -> SeenSession:
        shown = json.loads(self._ask(f"show bgp neighbors {address} json"))[str(address)]
        if shown["bgpState"] != "Established":
            return SeenSession(established=False)
        return SeenSession(
            established=True,
            hold_time=shown["bgpTimerHoldTimeMsecs"] // 1000,
            keepalive=shown["bgpTimerKeepAliveIntervalMsecs"] // 1000,
            updates=shown["messageStats"]["updatesRecv"],
        )

    def routes(self) -> Mapping[IPNetwork, tuple[Seen, ...]]:
        found: dict[IPNetwork, tuple[Seen, ...]] = {}
        for family in Family:
            shown = json.loads(self._ask(f"show bgp {family} json detail"))
            for prefix, entries in shown.get("routes", {}).items():
                paths = entries["paths"] if isinstance(entries, dict) else entries
                seen = tuple(_seen(path) for path in paths if "nexthops" in path)
                if seen:
                    found[ip_network(prefix)] = seen
        return found

    # --- how

    def _networks(self, announcements: Announcements) -> Iterator[str]:
        """Yield the commands: a route map for each set of attributes, a network for each prefix."""
        maps = {each: f"map{abs(hash(each))}" for each in set(announcements.values())}
        for attributes, name in maps.items():
            yield from (f"route-map {name} permit 10", *_settings(attributes), "exit")
        yield f"router bgp {self.setup.asn}"
        for family, version in ((Family.IPV4_UNICAST, 4), (Family.IPV6_UNICAST, 6)):
            yield f"address-family {family}"
            for prefix, attributes in announcements.items():
                if prefix.version == version:
                    yield f"network {prefix} route-map {maps[attributes]}"
            yield "exit-address-family"

    def _neighbour(self, line: str) -> None:
        self._configure(f"router bgp {self.setup.asn}", line)

    def _configure(self, *lines: str) -> None:
        for line in ("configure terminal", *lines, "end"):
            self._ask(line)

    def _connected(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(PATIENCE)
        path = str(self.directory / "vty" / "bgpd.vty")
        # The file is there a moment before anybody listens.
        until(lambda: not self.process.alive or made.connect_ex(path) == 0, "FRR answers")
        assert self.process.alive, self.process.log()
        return made

    def _ask(self, command: str) -> str:
        """Send a command and a zero; the answer ends with three zeros and a status byte."""
        if self._vty is None:
            self._vty = self._connected()
        self._vty.sendall(command.encode() + b"\0")
        answer = b""
        while answer[-4:-1] != END:
            more = self._vty.recv(1 << 18)
            assert more, "FRR hung up"
            answer += more
        text = answer[:-4].decode(errors="replace")
        assert answer[-1] in (OK, WARNING), f"FRR refused {command!r}: {text}"
        return text


def _head(setup: Setup) -> Iterator[str]:
    yield "hostname frr"
    if setup.address6:
        yield from ("route-map own6 permit 10", f"set ipv6 next-hop global {setup.address6}", "exit")
    yield f"router bgp {setup.asn}"
    yield f"bgp router-id {setup.identifier}"
    # RFC 8212 and the check against a table that is not there: a lab says what it means.
    yield from ("no bgp ebgp-requires-policy", "no bgp network import-check", "no bgp default ipv4-unicast")
    restart = max((each.restart_time or 0 for each in setup.neighbours), default=0)
    if restart:
        yield from ("bgp graceful-restart", f"bgp graceful-restart restart-time {restart}")
        yield "bgp graceful-restart preserve-fw-state"
    if setup.cluster_id:
        yield f"bgp cluster-id {setup.cluster_id}"
    for neighbour in setup.neighbours:
        yield from _neighbour(neighbour)
        for family in Family:
            if family in neighbour.families:
                yield f"address-family {family}"
                yield f"neighbor {neighbour.address} activate"
                if neighbour.client:
                    yield f"neighbor {neighbour.address} route-reflector-client"
                if setup.address6 and family is Family.IPV6_UNICAST and neighbour.address.version == 4:
                    # Without zebra it knows no address of its own but its end of the session, which is IPv4.
                    yield f"neighbor {neighbour.address} route-map own6 out"
                yield "exit-address-family"


def _neighbour(neighbour: Neighbour) -> Iterator[str]:
    name = f"neighbor {neighbour.address}"
    yield f"{name} remote-as {neighbour.asn}"
    yield f"{name} timers {max(1, neighbour.hold_time // 3)} {neighbour.hold_time}"
    yield f"{name} timers connect 1"
    yield f"{name} advertisement-interval 0"
    if neighbour.passive:
        yield f"{name} passive"
    if neighbour.password:
        yield f"{name} password {neighbour.password}"
    if neighbour.hops:
        yield f"{name} ebgp-multihop {neighbour.hops}"
    if neighbour.ttl_security:
        yield f"{name} ttl-security hops 1"
    if not neighbour.capabilities:
        yield f"{name} dont-capability-negotiate"
    if neighbour.extended_next_hop:
        yield f"{name} capability extended-nexthop"


def _settings(attributes: Attributes) -> Iterator[str]:
    if attributes.origin is not Origin.IGP:
        yield f"set origin {attributes.origin.name.lower()}"
    if attributes.as_path:
        yield f"set as-path prepend {' '.join(map(str, attributes.as_path))}"
    if attributes.local_preference is not None:
        yield f"set local-preference {attributes.local_preference}"
    if attributes.med is not None:
        yield f"set metric {attributes.med}"
    if attributes.communities:
        yield f"set community {' '.join(f'{high}:{low}' for high, low in attributes.communities)}"
    if attributes.large_communities:
        triples = (":".join(map(str, each)) for each in attributes.large_communities)
        yield f"set large-community {' '.join(triples)}"
    if attributes.next_hop is not None:
        family = "ip" if attributes.next_hop.version == 4 else "ipv6"
        yield (
            f"set {family} next-hop {attributes.next_hop}"
            if family == "ip"
            else f"set ipv6 next-hop global {attributes.next_hop}"
        )


def _seen(path: Mapping[str, Any]) -> Seen:
    used = next((each for each in path["nexthops"] if each.get("used")), path["nexthops"][0])
    hops = [hop for segment in path.get("aspath", {}).get("segments", ()) for hop in segment["list"]]
    communities = path.get("community", {}).get("list", ())
    large = path.get("largeCommunity", {}).get("list", ())
    originator = path.get("originatorId")
    peer = path.get("peer", {})
    return Seen(
        peer=address(peer.get("peerId", "")),
        attributes=Attributes(
            next_hop=address(used["ip"]),
            origin=Origin[path["origin"].upper()],
            as_path=tuple(hops),
            local_preference=path.get("locPrf"),
            med=path.get("metric", path.get("med")),
            communities=tuple(_pair(each) for each in communities),
            large_communities=tuple((a, b, c) for a, b, c in map(numbers, large)),
            originator_id=IPv4Address(originator) if originator else None,
            cluster_list=tuple(map(IPv4Address, path.get("clusterList", {}).get("list", ()))),
        ),
        best=bool(path.get("bestpath", {}).get("overall")),
    )


def _pair(text: str) -> tuple[int, int]:
    if text in WELL_KNOWN:
        return WELL_KNOWN[text]
    high, low = numbers(text)
    return high, low
