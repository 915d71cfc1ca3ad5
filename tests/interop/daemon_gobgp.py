"""GoBGP as a `Daemon`: a TOML file, and its own client over a unix socket."""

import json
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any, ClassVar

from daemons import PLAIN, Announcements, Daemon, Neighbour, Seen, SeenSession, Setup, address, until

from bgp.types import Attributes, Family, IPAddress, IPNetwork, Origin

ESTABLISHED = 6
"""session_state of its API, in the order of RFC 4271 section 8.2.2 from 1 on."""

MANY = 50
"""Prefixes from which on a file is quicker than a call of the client for each, 15 ms."""

QUEUE = 1024
"""Prefixes that its client holds at most before it sends them, `--queue-size` of `gobgp mrt inject`."""

NAMES = {Family.IPV4_UNICAST: "ipv4-unicast", Family.IPV6_UNICAST: "ipv6-unicast"}


@dataclass
class Gobgp(Daemon):
    """gobgpd in a namespace."""

    kind: ClassVar[str] = "gobgp"

    # --- being told

    def start(self, setup: Setup) -> None:
        self._setup = setup
        (self.directory / "gobgpd.toml").write_text("\n".join(_configuration(setup)))
        (self.directory / "api").unlink(missing_ok=True)
        command: list[str | Path] = ["gobgpd", "-f", self.directory / "gobgpd.toml"]
        command += ["--api-hosts", self._api, "--pprof-disable"]
        self._wire("down" if setup.restarting else "up")
        self.process.start(*command, *(["-r"] if setup.restarting else []))
        # The API answers a moment before the file has been read: wait for the last of its neighbours.
        until(lambda: len(self._peers()) == len(setup.neighbours) or not self.process.alive, "GoBGP answers")
        assert self.process.alive, self.process.log()
        if self.said:
            self.announce(dict(self.said))
        self._wire("up")

    def announce(self, announcements: Announcements) -> None:
        self.said |= announcements
        plain = [prefix for prefix, attributes in announcements.items() if attributes == PLAIN]
        if len(plain) >= MANY:
            self._inject(plain)
        else:
            plain = []
        for prefix, attributes in announcements.items():
            if prefix not in plain:
                self._call("global", "rib", *_family(prefix), "add", str(prefix), *_settings(attributes))

    def withdraw(self, *prefixes: IPNetwork) -> None:
        for prefix in prefixes:
            self.said.pop(prefix, None)
            self._call("global", "rib", *_family(prefix), "del", str(prefix))

    def shut(self, address: IPAddress, message: str) -> None:
        # `disable` would keep it down, but says nothing to the other side.
        self._call("neighbor", str(address), "shutdown", "--reason", message)

    def open(self, address: IPAddress) -> None:
        """Do nothing: a session that was shut comes back after five seconds, GoBGP's idle hold time."""

    def ask_again(self, address: IPAddress) -> None:
        self._call("neighbor", str(address), "softresetin")

    # --- being asked

    def version(self) -> str:
        done = subprocess.run(["gobgpd", "--version"], check=True, capture_output=True, text=True)
        return done.stdout.strip().replace("gobgpd version", "GoBGP")

    def session(self, address: IPAddress) -> SeenSession:
        shown = next(each for each in self._peers() if each["conf"]["neighbor_address"] == str(address))
        if shown["state"].get("session_state") != ESTABLISHED:
            return SeenSession(established=False)
        timers = shown["timers"]["state"]
        return SeenSession(
            established=True,
            hold_time=int(timers["negotiated_hold_time"]),
            keepalive=int(timers["keepalive_interval"]),
            updates=int(shown["state"]["messages"].get("received", {}).get("update", 0)),
        )

    def routes(self) -> Mapping[IPNetwork, tuple[Seen, ...]]:
        found: dict[IPNetwork, tuple[Seen, ...]] = {}
        for family in ("ipv4", "ipv6"):
            shown = json.loads(self._call("-j", "global", "rib", "-a", family) or "{}")
            for prefix, paths in shown.items():
                found[ip_network(prefix)] = tuple(map(_seen, paths))
        return found

    # --- how

    def _wire(self, state: str) -> None:
        """Unplug it while it restarts: what it announces comes by its API, and must be there before its sessions."""
        command = ["ip", "-n", self.namespace, "link", "set", "eth0", state]
        subprocess.run(command, check=True, capture_output=True)

    @property
    def _api(self) -> str:
        return f"unix://{self.directory / 'api'}"

    def _peers(self) -> list[dict[str, Any]]:
        done = self._run("-j", "neighbor")
        return json.loads(done.stdout or "[]") if done.returncode == 0 else []

    def _call(self, *words: str) -> str:
        done = self._run(*words)
        assert done.returncode == 0, f"gobgp {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["gobgp", "--target", self._api, *words]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def _inject(self, prefixes: list[IPNetwork]) -> None:
        """Load a table from a file; the client leaves without what is left in its queue: let that be a repetition."""
        path = self.directory / "table.mrt"
        path.write_bytes(b"".join(mrt([*prefixes, *prefixes[:1] * 2 * QUEUE])))
        self._call("mrt", "inject", "global", str(path), "--no-ipv6", "--nexthop", str(self.setup.address))
        until(lambda: self.has(*prefixes), "GoBGP has the whole table")


def _family(prefix: IPNetwork) -> tuple[str, str]:
    return "-a", f"ipv{prefix.version}"


def _settings(attributes: Attributes) -> Iterator[str]:
    yield from ("origin", attributes.origin.name.lower())
    if attributes.as_path:
        yield from ("aspath", ",".join(map(str, attributes.as_path)))
    if attributes.local_preference is not None:
        yield from ("local-pref", str(attributes.local_preference))
    if attributes.med is not None:
        yield from ("med", str(attributes.med))
    if attributes.communities:
        yield from ("community", ",".join(f"{high}:{low}" for high, low in attributes.communities))
    if attributes.large_communities:
        yield from ("large-community", ",".join(":".join(map(str, each)) for each in attributes.large_communities))
    if attributes.next_hop is not None:
        yield from ("nexthop", str(attributes.next_hop))


def _configuration(setup: Setup) -> Iterator[str]:
    yield "[global.config]"
    yield f"as = {setup.asn}"
    yield f'router-id = "{setup.identifier}"'
    yield f"local-address-list = {json.dumps(list(map(str, setup.addresses)))}"
    for neighbour in setup.neighbours:
        yield from _neighbour(setup, neighbour)


def _neighbour(setup: Setup, neighbour: Neighbour) -> Iterator[str]:
    yield from ("[[neighbors]]", "[neighbors.config]")
    yield f'neighbor-address = "{neighbour.address}"'
    yield f"peer-as = {neighbour.asn}"
    if neighbour.password:
        yield f'auth-password = "{neighbour.password}"'
    yield "[neighbors.timers.config]"
    yield f"hold-time = {neighbour.hold_time}"
    yield f"keepalive-interval = {max(1, neighbour.hold_time // 3)}"
    yield from ("connect-retry = 1", "idle-hold-time-after-reset = 1")
    yield "[neighbors.transport.config]"
    yield f'local-address = "{setup.towards(neighbour)}"'
    yield f"passive-mode = {str(neighbour.passive).lower()}"
    if neighbour.hops:
        yield from ("[neighbors.ebgp-multihop.config]", "enabled = true", f"multihop-ttl = {neighbour.hops}")
    if neighbour.ttl_security:
        yield from ("[neighbors.ttl-security.config]", "enabled = true", "ttl-min = 255")
    yield "[neighbors.graceful-restart.config]"
    # Without it GoBGP would not keep our paths either while we restart: it helps only where it restarts itself.
    yield from ("enabled = true", f"restart-time = {neighbour.restart_time or 1}", "deferral-time = 1")
    if neighbour.restart_time is None:
        yield "helper-only = true"
    if neighbour.client:
        yield from ("[neighbors.route-reflector.config]", "route-reflector-client = true")
        yield f'route-reflector-cluster-id = "{setup.cluster_id or setup.identifier}"'
    for family in neighbour.families:
        yield from ("[[neighbors.afi-safis]]", "[neighbors.afi-safis.config]")
        yield f'afi-safi-name = "{NAMES[family]}"'
        yield from ("[neighbors.afi-safis.mp-graceful-restart.config]", "enabled = true")


def _seen(path: Mapping[str, Any]) -> Seen:
    found = {each["type"]: each for each in path["attrs"]}
    reach = found.get(14, {})
    hops = [hop for part in found.get(2, {}).get("as_paths", ()) for hop in part["asns"]]
    return Seen(
        peer=address(path.get("neighbor-ip", "")),
        attributes=Attributes(
            next_hop=address(found.get(3, reach).get("nexthop", "")),
            origin=Origin(found.get(1, {}).get("value", 0)),
            as_path=tuple(hops),
            med=found.get(4, {}).get("metric"),
            local_preference=found.get(5, {}).get("value"),
            communities=tuple((each >> 16, each & 0xFFFF) for each in found.get(8, {}).get("communities", ())),
            large_communities=tuple(
                (each["ASN"], each["LocalData1"], each["LocalData2"]) for each in found.get(32, {}).get("value", ())
            ),
            originator_id=IPv4Address(found[9]["value"]) if 9 in found else None,
            cluster_list=tuple(map(IPv4Address, found.get(10, {}).get("value", ()))),
        ),
        best=bool(path.get("best")),
    )


def mrt(prefixes: list[IPNetwork]) -> Iterator[bytes]:
    """Yield a routing table as MRT records, RFC 6396 section 4.3: a peer index, then each prefix with an empty path."""
    yield _record(1, struct.pack("!IHH", 0, 0, 1) + b"\x02" + struct.pack("!III", 0, 0, 0))
    attributes = bytes([0x40, 1, 1, Origin.IGP, 0x40, 2, 0, 0x40, 3, 4, 0, 0, 0, 0])
    for number, prefix in enumerate(prefixes):
        network = prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        entry = struct.pack("!HIH", 0, 0, len(attributes)) + attributes
        yield _record(2, struct.pack("!IB", number, prefix.prefixlen) + network + struct.pack("!H", 1) + entry)


def _record(subtype: int, body: bytes) -> bytes:
    return struct.pack("!IHHI", 0, 13, subtype, len(body)) + body
