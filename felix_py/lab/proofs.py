"""What the demo proves, each by commands on the screen with their real output; a proof that fails says what it saw."""

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_network

from felix_py.calc import encap
from felix_py.calc.encap import Encapsulation
from felix_py.lab import faults, health, lifecycle, machines, matrix, routing, screen, status, watching
from felix_py.lab.state import DEFAULT_NAME, Lab
from felix_py.lab.topology import LabNode, Router, Topology
from felix_py.model import TunnelMode, lies_in

REPAIR_MILLISECONDS = 100.0
"""What a repair may take at most; the contract with users."""


class NotProved(Exception):  # noqa: N818 - named for what it means: the sentence says what was seen instead
    """What should be shown is not so."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The lab, and who plays in it.

    Attributes:
        here: the node that is looked at.
        near: another node of its network; None where there is none.
        far: a node of another network; None where there is none.
    """

    lab: Lab
    topology: Topology
    here: LabNode
    near: LabNode | None
    far: LabNode | None

    def pod(self, node: LabNode, version: int = 4) -> tuple[str, str]:
        """Return a node's first pod: its name and its address."""
        name = node.pod_names[0]
        return name, self.lab.pod_addresses(version)[name]

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP that the pods of these nodes have addresses of."""
        nodes = [each for each in (self.here, self.near, self.far) if each is not None]
        every = [{block.version for block in node.blocks} for node in nodes]
        return tuple(sorted(set.intersection(*every)))

    def run(self, target: str, *words: str, limit: int = 12) -> str:
        """Show a command and its output, run where the target is; return the output.

        Raises:
            NotProved: when it fails.
        """
        screen.command(shlex.join([*self.typed(), "exec", target, *words]))
        done = self.quietly(target, *words)
        screen.output(done.stdout + done.stderr, limit)
        if done.returncode != 0:
            raise NotProved(f"`{' '.join(words)}` on {target} ended with status {done.returncode}")
        return done.stdout

    def quietly(self, target: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command where the target is."""
        command = [*machines.enter(self.lab, target), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=machines.environment())

    def typed(self) -> list[str]:
        """Return how a user types felix-lab for this lab."""
        return ["felix-lab"] if self.lab.name == DEFAULT_NAME else ["felix-lab", "--name", self.lab.name]


def stage(lab: Lab, topology: Topology) -> Stage | None:
    """Give the roles to the topology's nodes; None where no node has a pod."""
    nodes = [node for node in topology.nodes if node.pods]
    if not nodes:
        return None
    here, others = nodes[0], nodes[1:]
    near = next((node for node in others if node.network == here.network), None)
    far = next((node for node in others if node.network != here.network), None)
    return Stage(lab, topology, here, near, far)


def everybody_reaches_everybody(on: Stage) -> str:
    """Ping from every node, pod and host to every other."""
    screen.command([*on.typed(), "ping"])
    told = []
    for title, found in status.matrices(on.lab, on.topology):
        screen.output(matrix.table(found, plain=screen.plain()), limit=200)
        told.append(title + matrix.summary(found))
        if found.lost:
            raise NotProved(told[-1])
    return "; ".join(told)


def packets_on_the_wire(on: Stage) -> str:
    """Capture a ping to a pod of the same network, and one to a pod of another."""
    words = []
    for version in on.versions:
        if on.near is not None:
            words.append(_path(on, on.near, version, where=on.here.network, interface=str(on.here.name)))
        if on.far is not None:
            router = next(router.name for router in on.topology.routers if on.here.network in router.addresses)
            words.append(_path(on, on.far, version, where=router, interface=on.here.network))
    if not words:
        raise NotProved("there is one node only; nobody to send to")
    return "; ".join(words)


def encapsulated(on: Stage, target: LabNode, version: int = 4) -> Encapsulation:
    """Say what the target's pool wants packets from here to there to be wrapped in."""
    block = next(block for block in target.blocks if block.version == version)
    wish = encap.asked(next(pool for pool in on.topology.pools if lies_in(block, pool.cidr)))
    apart = wish.mode is TunnelMode.CROSS_SUBNET and target.network != on.here.network
    return wish.tunnel if apart or wish.mode is TunnelMode.ALWAYS else Encapsulation.NONE


# Everything of interest is captured, so that a packet in a tunnel would be seen too; of ICMPv6 only echoes (RFC 4443).
STRAIGHT = {
    4: "icmp or ip proto 4 or udp port 4789",
    6: "ip6[40] == 128 or ip6[40] == 129 or proto 41 or udp port 4789",
}
WORDS = {4: ("IP", "ICMP"), 6: ("IP6", "ICMP6,")}
"""By version of IP: what tcpdump is asked for where nothing should be encapsulated, and how it calls IP and ICMP."""

WRAPPED = {
    Encapsulation.IPIP: ("ip proto 4", "IP {here} > {there}: ", "in IP protocol 4"),
    Encapsulation.VXLAN: ("udp port 4789", "", "in VXLAN"),
}
"""What tcpdump is asked for, how it begins the line of the inner packet (VXLAN's has one of its own), and in words."""


def _path(on: Stage, target: LabNode, version: int, *, where: str, interface: str) -> str:
    (source_pod, source), (_, destination) = on.pod(on.here, version), on.pod(target, version)
    expression, outer, words = WRAPPED.get(encapsulated(on, target, version), (STRAIGHT[version], "", ""))
    command = ["tcpdump", "-nn", "-t", "--immediate-mode", "-i", interface, "-c", "2", *expression.split()]
    with watching.running([*machines.enter(on.lab, where), *command]) as capture:
        capture.wait_for_complaint("listening on")
        on.quietly(source_pod, "ping", "-c", "1", "-W", "2", destination)
        lines = capture.lines()
    screen.command([*on.typed(), "exec", where, *command, f"   # {source_pod} pings a pod on {target.name}"])
    screen.output("\n".join(lines))
    ip, icmp = WORDS[version]
    here, there = (next(each for each in node.ends if each.version == version) for node in (on.here, target))
    packet = f"{outer.format(here=here, there=there)}{ip} {source} > {destination}: {icmp} echo request"
    if not any(line.startswith(f"{packet}, ") for line in lines):
        raise NotProved(f"no packet `{packet}` was seen on {interface} of {where}")
    road = f"{on.here.name} to {target.name}" + (f" by IPv{version}" if len(on.versions) > 1 else "")
    return f"{road} {words} between {here} and {there}" if words else f"{road} not encapsulated"


IP = {4: ["ip"], 6: ["ip", "-6"]}
"""The program that shows and changes routes, by version of IP."""


def outside_by_bgp(on: Stage) -> str:
    """Reach a pod from a host that knows only its router, which learned the way by BGP."""
    routers = on.topology.routers
    counts = " and ".join(f"{router.name} has {_learned_by_bgp(on, router)}" for router in routers)
    host = next(host.name for host in on.topology.hosts)
    node = on.far or on.here
    addresses = [on.pod(node, version)[1] for version in on.versions]
    for address in addresses:
        on.run(host, "ping", "-c", "3", "-i", "0.1", "-W", "2", address)
    return f"{counts} routes by BGP, and {host} reaches {' and '.join(addresses)} on {node.name} through them"


def _learned_by_bgp(on: Stage, router: Router) -> int:
    """Show what a router has learned, in its daemon's words and in its kernel's; return the number of routes there."""
    daemon = routing.DAEMONS[router.daemon]
    for version in on.versions:
        on.run(router.name, *daemon.tables[version], limit=20)
        on.run(router.name, *IP[version], "route", "show", "proto", daemon.protocol)
    problems = list(health.router_problems(on.lab, on.topology, router))
    if problems:
        raise NotProved("; ".join(problems))
    return len(health.learned(on.lab, router))


def felixctl_tells(on: Stage) -> str:
    """Print what the node's agent says of its routes and its sessions."""
    name = on.here.name
    on.run(name, "felixctl", "routes", limit=20)
    table = on.run(name, "felixctl", "bgp", "peers", limit=20)
    established = table.count("Established")
    expected = health.sessions(on.topology, on.here)
    if established != expected:
        raise NotProved(f"{name} has {established} sessions established of {expected}")
    return f"every route of {name} is installed, and its {established} sessions are established"


def deaths_cost_nothing(on: Stage) -> str:
    """Kill the agent, then its ExaBGP, under a running ping and in sight of every machine's route monitor."""
    target = on.far or on.near or on.here
    source_pod, target_pod = on.here.pod_names[0], target.pod_names[0]
    pings = [["ping", "-i", "0.005", on.pod(target, version)[1]] for version in on.versions]
    commands = {
        name: watching.route_monitor(on.lab, name, on.versions)
        for name in (*(node.name for node in on.topology.nodes), *(router.name for router in on.topology.routers))
    }
    with ExitStack() as stack:
        monitors = {name: stack.enter_context(watching.running(words)) for name, words in commands.items()}
        for monitor in monitors.values():
            monitor.wait_for_netlink()
        *others, last = commands
        screen.command([*commands[last], f"   # and on {', '.join(others)}, all the while"])
        pinging = []
        for ping in pings:
            screen.command([*on.typed(), "exec", source_pod, *ping, f"   # {target_pod}, 200 packets a second"])
            pinging.append(stack.enter_context(watching.running([*machines.enter(on.lab, source_pod), *ping])))
        time.sleep(0.5)  # some packets before, so that a loss at the first death shows
        for part in ("agent", "bgp"):
            _kill(on, part)
        time.sleep(0.5)  # and some after
        summaries = [watching.ping_summary(each.stop()) for each in pinging]
        events = {name: watching.route_events(monitor.stop()) for name, monitor in monitors.items()}
    for summary in summaries:
        screen.output(summary.line)
    sent, answered = sum(each.transmitted for each in summaries), sum(each.received for each in summaries)
    return judge(watching.PingSummary(sent, answered, ""), events)


def _kill(on: Stage, part: str) -> None:
    """Kill a part of the node and wait until everything stands as before, with another process."""
    target = f"{on.here.name}.{part}"
    find: Callable[[], int | None] = {
        "agent": lambda: machines.daemon(on.lab.of_node(on.here.name)),
        "bgp": lambda: faults.exabgp_or_none(on.lab, on.here.name),
    }[part]
    before, start = find(), time.monotonic()
    screen.command([*on.typed(), "fail", target])
    screen.output(faults.fail(on.lab, target))
    missing = [f"{on.here.name}: no new process"]
    lifecycle.wait(
        on.lab,
        lambda: missing if find() in (None, before) else health.not_converged(on.lab, on.topology),
    )
    screen.output(f"process {find()} took over; all sessions stand again after {time.monotonic() - start:.1f} s")


def judge(summary: watching.PingSummary, events: dict[str, tuple[watching.RouteEvent, ...]]) -> str:
    """Judge what a ping and the route monitors saw while processes died.

    Raises:
        NotProved: when a packet was lost or a route changed.
    """
    changed = {name: several for name, several in events.items() if several}
    for name, several in changed.items():
        screen.output("\n".join(f"{name}: {event.text}" for event in several))
    lost = summary.transmitted - summary.received
    if lost:
        raise NotProved(f"{lost} of {summary.transmitted} packets were lost")
    if changed:
        counts = ", ".join(f"{len(several)} on {name}" for name, several in changed.items())
        raise NotProved(f"routes changed: {counts}")
    return f"{summary.received} packets, none lost; 0 route events on {', '.join(events)}"


def repaired_at_once(on: Stage) -> str:
    """Delete routes behind the agent's back, one of each kind, and read the times in the kernel's own events."""
    name = on.here.name
    slowest = 0.0
    for prefix in _repairable(on):
        with watching.running(watching.route_monitor(on.lab, name, on.versions)) as monitor:
            monitor.wait_for_netlink()
            on.run(name, *_ip(prefix), "route", "del", prefix)
            lifecycle.wait(on.lab, lambda: _absent(on, prefix), 2.0)  # noqa: B023 - used in this turn only
            events = watching.route_events(monitor.stop())
        screen.output("\n".join(f"{event.at:%H:%M:%S.%f}  {event.text}" for event in events))
        took = watching.repair_milliseconds(events, prefix)
        if took is None or took > REPAIR_MILLISECONDS:
            found = "did not come back" if took is None else f"came back after {took:.1f} ms"
            raise NotProved(f"route {prefix} {found}; {REPAIR_MILLISECONDS:.0f} ms are allowed")
        slowest = max(slowest, took)
    return f"each route was back within {slowest:.1f} ms"


def _repairable(on: Stage) -> Iterator[str]:
    for version in on.versions:
        for node in (on.near, on.far):
            if node is not None:
                yield next(str(block) for block in node.blocks if block.version == version)
        yield str(ip_network(on.pod(on.here, version)[1]))


def _ip(prefix: str) -> list[str]:
    return IP[ip_network(prefix).version]


def _absent(on: Stage, prefix: str) -> list[str]:
    shown = on.quietly(on.here.name, *_ip(prefix), "route", "show", "exact", prefix).stdout.strip()
    return [] if shown else [f"{on.here.name}: route {prefix} is not back"]


Proof = tuple[str, Callable[[Stage], str]]

PROOFS: Sequence[Proof] = (
    ("Every pod, node and host reaches every other", everybody_reaches_everybody),
    ("Encapsulated between networks, and only there: seen on the wire", packets_on_the_wire),
    ("The world outside reaches pods by routes that its routers learned by BGP", outside_by_bgp),
    ("The agent says what it holds, and from whom", felixctl_tells),
    ("Neither the agent's death nor that of its ExaBGP costs a packet or a route", deaths_cost_nothing),
    ("A route deleted behind the agent's back is back at once", repaired_at_once),
)
