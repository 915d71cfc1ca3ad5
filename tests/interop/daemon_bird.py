"""BIRD 2 as a `Daemon`: a configuration that is read anew for each change, and its control socket."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import ClassVar

from daemons import Announcements, Daemon, Neighbour, Seen, SeenSession, Setup, address, numbers, until

from bgp.types import Attributes, Family, IPAddress, IPNetwork, Origin

CHANNELS = {Family.IPV4_UNICAST: "ipv4", Family.IPV6_UNICAST: "ipv6"}
HEAD = """
log stderr all;
router id {identifier};
debug protocols {{ states, events }};
protocol device {{ }}
protocol direct {{ ipv4; ipv6; }}
"""


@dataclass
class Bird(Daemon):
    """BIRD in a namespace."""

    kind: ClassVar[str] = "bird"

    # --- being told

    def start(self, setup: Setup) -> None:
        self._setup = setup
        self._write()
        command: list[str | Path] = ["bird", "-f", "-c", self._path("conf"), "-s", self._path("ctl")]
        self._path("ctl").unlink(missing_ok=True)
        self.process.start(*command, *(["-R"] if setup.restarting else []))
        until(lambda: self._answers() or not self.process.alive, "BIRD answers")
        assert self.process.alive, self.process.log()

    def announce(self, announcements: Announcements) -> None:
        self.said |= announcements
        self._reconfigure()

    def withdraw(self, *prefixes: IPNetwork) -> None:
        for prefix in prefixes:
            self.said.pop(prefix, None)
        self._reconfigure()

    def shut(self, address: IPAddress, message: str) -> None:
        self._ask(f'disable {_name(address)} "{message}"')

    def open(self, address: IPAddress) -> None:
        self._ask(f"enable {_name(address)}")

    def ask_again(self, address: IPAddress) -> None:
        self._ask(f"reload in {_name(address)}")

    # --- being asked

    def version(self) -> str:
        done = subprocess.run(["bird", "--version"], check=True, capture_output=True, text=True)
        return done.stderr.strip().replace(" version", "")

    def session(self, address: IPAddress) -> SeenSession:
        shown = self._ask(f"show protocols all {_name(address)}")
        if "Established" not in shown:
            return SeenSession(established=False)
        timers = dict(re.findall(r"(Hold|Keepalive) timer: +[\d.]+/(\d+)", shown))
        updates = re.findall(r"Import updates: +(\d+)", shown)
        return SeenSession(
            established=True,
            hold_time=int(timers["Hold"]) if "Hold" in timers else 0,
            keepalive=int(timers["Keepalive"]) if "Keepalive" in timers else None,
            updates=sum(map(int, updates)),
        )

    def routes(self) -> Mapping[IPNetwork, tuple[Seen, ...]]:
        found: dict[IPNetwork, list[Seen]] = {}
        peers = {_name(each.address): each.address for each in self.setup.neighbours}
        prefix: IPNetwork | None = None
        for entry in re.split(r"\n(?=\S| {21}\S)", self._ask("show route all")):
            head, _, rest = entry.partition("\n")
            line = re.match(r"(\S+)? +\w+ \[(\S+) [^]]*\]( \*)?", head)
            if line is None:
                continue
            prefix = ip_network(line[1]) if line[1] else prefix
            if prefix is not None and not line[2].startswith("direct"):
                seen = Seen(peers.get(line[2]), _attributes(rest), best=line[3] is not None)
                found.setdefault(prefix, []).append(seen)
        return {prefix: tuple(paths) for prefix, paths in found.items()}

    # --- how

    def _path(self, suffix: str) -> Path:
        return self.directory / f"bird.{suffix}"

    def _write(self) -> None:
        self._path("conf").write_text("".join(_configuration(self.setup, self.said)))

    def _reconfigure(self) -> None:
        self._write()
        answer = self._ask("configure soft" if not self.said else "configure")
        assert "Reconfigur" in answer, answer

    def _answers(self) -> bool:
        """Say whether it takes commands: the socket stands before BIRD listens at it, and before it is ready."""
        try:
            return "up and running" in self._ask("show status")
        except (FileNotFoundError, ConnectionError):
            return False

    def _ask(self, command: str) -> str:
        """Ask over the control socket: each line has four digits, and the last one no hyphen after them."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self._path("ctl")))
            lines = control.makefile(encoding="utf-8", errors="replace")
            lines.readline()
            control.sendall(command.encode() + b"\n")
            answer = []
            for line in lines:
                coded = re.match(r"(\d{4})([- ])", line)
                answer.append(line[5:] if coded else line[1:])
                if coded and coded[2] == " ":
                    break
        return "".join(answer)


def _name(address: IPAddress) -> str:
    return "p_" + str(address).replace(".", "_").replace(":", "_")


def _configuration(setup: Setup, said: Announcements) -> Iterator[str]:
    yield HEAD.format(identifier=setup.identifier)
    if setup.forwards:
        yield "protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n"
    for version, channel in ((4, "ipv4"), (6, "ipv6")):
        routes = "".join(_route(prefix, said[prefix]) for prefix in said if prefix.version == version)
        yield f"protocol static own{version} {{\n  {channel};\n{routes}}}\n"
    for neighbour in setup.neighbours:
        yield _session(setup, neighbour, said)


def _route(prefix: IPNetwork, attributes: Attributes) -> str:
    return f"  route {prefix} blackhole {{{''.join(_settings(attributes))}}};\n"


def _settings(attributes: Attributes) -> Iterator[str]:
    if attributes.origin is not Origin.IGP:
        yield f" bgp_origin = ORIGIN_{attributes.origin.name};"
    for hop in reversed(attributes.as_path):
        yield f" bgp_path.prepend({hop});"
    if attributes.local_preference is not None:
        yield f" bgp_local_pref = {attributes.local_preference};"
    if attributes.med is not None:
        yield f" bgp_med = {attributes.med};"
    for pair in attributes.communities:
        yield f" bgp_community.add({pair});"
    for triple in attributes.large_communities:
        yield f" bgp_large_community.add({triple});"


def _session(setup: Setup, neighbour: Neighbour, said: Announcements) -> str:
    options = [
        f"local {setup.towards(neighbour)} as {setup.asn}",
        f"neighbor {neighbour.address} as {neighbour.asn}",
        f"hold time {neighbour.hold_time}",
        f"passive {'on' if neighbour.passive else 'off'}",
        "connect delay time 1",
        "connect retry time 1",
        "error wait time 1, 1",
        "error forget time 1",
        f"multihop {neighbour.hops}" if neighbour.hops else "direct",
        f"graceful restart {'on' if neighbour.restart_time else 'aware'}",
    ]
    options += [f'password "{neighbour.password}"'] if neighbour.password else []
    options += ["ttl security on"] if neighbour.ttl_security else []
    options += [f"graceful restart time {neighbour.restart_time}"] if neighbour.restart_time else []
    options += ["capabilities off"] if not neighbour.capabilities else []
    options += ["rr client"] if neighbour.client else []
    options += [f"rr cluster id {setup.cluster_id}"] if setup.cluster_id and neighbour.client else []
    hops = "".join(
        f"    if net = {prefix} then bgp_next_hop = {each.next_hop};\n"
        for prefix, each in said.items()
        if each.next_hop
    )
    export = f"filter {{\n    if source = RTS_DEVICE then reject;\n{hops}    accept;\n  }}"
    extended = " extended next hop on;" if neighbour.extended_next_hop else ""
    channels = (f"  {CHANNELS[each]} {{ import all; export {export};{extended} }};\n" for each in neighbour.families)
    lines = "".join(f"  {option};\n" for option in options)
    return f"protocol bgp {_name(neighbour.address)} {{\n{lines}{''.join(channels)}}}\n"


def _attributes(text: str) -> Attributes:
    lines = dict(re.findall(r"BGP\.(\w+): *(.*)", text))
    return Attributes(
        next_hop=address(lines["next_hop"].split()[0]) if lines.get("next_hop") else None,
        origin=Origin[lines.get("origin", "IGP").upper()],
        as_path=numbers(lines.get("as_path", "")),
        local_preference=int(lines["local_pref"]) if "local_pref" in lines else None,
        med=int(lines["med"]) if "med" in lines else None,
        communities=tuple((high, low) for high, low in map(numbers, _brackets(lines.get("community", "")))),
        large_communities=tuple((a, b, c) for a, b, c in map(numbers, _brackets(lines.get("large_community", "")))),
        originator_id=IPv4Address(lines["originator_id"]) if "originator_id" in lines else None,
        cluster_list=tuple(map(IPv4Address, lines.get("cluster_list", "").split())),
    )


def _brackets(text: str) -> list[str]:
    return re.findall(r"\([^)]*\)", text)
