"""The checks of `felixctl doctor` on tunnels: what carries them, what they drop, and what passes to other nodes."""

from collections.abc import Callable, Iterable

from felix_py.ctl.doctor_facts import Facts
from felix_py.ctl.doctor_findings import Finding, State, ok, skipped
from felix_py.ctl.probe_packets import Way
from felix_py.ctl.tunnel_probe import Probe
from felix_py.kernel import filter_table

NO_TUNNEL = "no tunnel is needed here, or no agent says so"

NAMES_OF_PROTOCOL_4 = ("l4proto 4 ", "l4proto ipencap ", "ip protocol 4 ", "ip protocol ipencap ", "ip protocol ipip ")
"""How nft writes IP in IP in a rule."""


def driver(facts: Facts) -> Finding:
    """Look at what carries the tunnel."""
    tunnel = facts.status and facts.status["tunnel"]
    if not tunnel:
        return skipped(NO_TUNNEL)
    if tunnel["driver"] == "tun":
        return Finding(
            State.WARNING,
            f"the tunnel is carried by a process: {tunnel['why']}",
            "install the kernel's module for speed: modprobe ipip",
        )
    return ok(f"{tunnel['device']}, {tunnel['why']}")


def drivers(facts: Facts) -> Finding:
    """Look at which drivers this kernel offers."""
    if not facts.drivers:
        return Finding(
            State.FAILED,
            "this kernel has neither the ipip module nor BPF nor TUN devices: no tunnel can be made",
            "modprobe ipip, or modprobe tun; in a container, pass /dev/net/tun in",
        )
    if facts.drivers == {"tun"}:
        return Finding(
            State.WARNING,
            "this kernel has neither the ipip module nor BPF: a process would carry tunnels",
            "modprobe ipip; Debian has it in linux-image, Ubuntu in linux-modules-extra",
        )
    return ok(f"this kernel can carry tunnels by {', '.join(sorted(facts.drivers))}")


def device(facts: Facts) -> Finding:
    """Look whether the device is as wanted."""
    if not facts.tunnels:
        return skipped(NO_TUNNEL)
    for row in facts.tunnels:
        if row["state"] != "installed":
            return Finding(
                State.FAILED,
                f"{row['device']} is {row['state']}",
                "the agent should have put it right: `felixctl status` says what keeps it from that",
            )
    return ok(f"{', '.join(row['device'] for row in facts.tunnels)}: as wanted")


def drops(facts: Facts) -> Finding:
    """Look at tunnel packets from strangers."""
    if not facts.tunnels:
        return skipped(NO_TUNNEL)
    for row in facts.tunnels:
        if strangers := row["dropped"].get("source_not_allowed", 0):
            return Finding(
                State.WARNING,
                f"{row['device']} dropped {strangers} packets from addresses of no known node",
                "see who sends: tcpdump -ni any ip proto 4; a node behind NAT belongs into externalNodesList",
            )
    return ok("no tunnel packet came from a stranger")


def mtu(facts: Facts) -> Finding:
    """Look whether what fits the tunnel fits this host's uplinks, and what pods send the tunnel."""
    tunnel = facts.status and facts.status["tunnel"]
    pods = [link for name, link in facts.links.items() if name.startswith("cali")]
    if not tunnel:
        return skipped(NO_TUNNEL)
    uplinks = [link.mtu for link in facts.links.values() if link.up and link.name != "lo" and link not in pods]
    room = max((mtu for mtu in uplinks if mtu != tunnel["mtu"]), default=0)
    overhead = tunnel["overhead"]
    if room < tunnel["mtu"] + overhead:
        return Finding(
            State.FAILED,
            f"no interface takes the {tunnel['mtu'] + overhead} bytes of a full tunnel packet",
            "raise the MTU of the uplink, or lower or leave out its MTU in FelixConfiguration",
        )
    large = [link for link in pods if link.mtu > tunnel["mtu"]]
    if large:
        return Finding(
            State.WARNING,
            f"{large[0].name} has MTU {large[0].mtu}, and the tunnel {tunnel['mtu']}",
            "see `felixctl status` for why it does not follow, or restart the pod; path MTU discovery helps until then",
        )
    return ok(f"a full packet of {tunnel['mtu']} bytes fits the tunnel and the uplink")


def rules(facts: Facts) -> Finding:
    """Look for rules of others that name tunnel packets and drop them."""
    if facts.nftables is not None:
        return skipped(f"nftables could not be asked: {facts.nftables}")
    for chain in facts.chains:
        for line in chain.lines if not chain.table.endswith(filter_table.NAME) else ():
            if any(name in line for name in NAMES_OF_PROTOCOL_4) and {"drop", "reject"} & {*line.split()}:
                return Finding(
                    State.FAILED,
                    f"chain {chain} drops tunnel packets: `{line}`",
                    f"remove the rule: nft -a list chain {chain} shows its handle for nft delete rule {chain} handle N",
                )
    return ok("no rule of another table drops protocol 4 by name")


# --- between nodes

FILTERED: tuple[tuple[Callable[[frozenset[Way]], bool], Callable[[Probe], Finding]], ...] = (
    (lambda ways: Way.BOTH in ways, lambda probe: ok(f"protocol 4 passes to {probe.name} and back")),
    (
        lambda ways: Way.PLAIN not in ways,
        lambda probe: Finding(
            State.WARNING,
            f"{probe.name} ({probe.there}) does not answer a plain echo request: nothing can be said of tunnels",
            f"see where it ends: felixctl trace {probe.there}; is the node up, and does it let ICMP in?",
        ),
    ),
    (lambda ways: Way.THERE in ways, lambda probe: _filtered(f"{probe.name} ({probe.there})", "this node", probe)),
    (lambda ways: Way.BACK in ways, lambda probe: _filtered("this node", f"{probe.name} ({probe.there})", probe)),
    (
        lambda _: True,
        lambda probe: Finding(
            State.FAILED,
            f"protocol 4 is filtered both from this node to {probe.name} ({probe.there}) and back, though plain "
            f"packets pass; or {probe.name} takes nothing out of its tunnel",
            f"let IP protocol 4 pass between {probe.here} and {probe.there} on the routers and firewalls on the way; "
            f"felixctl doctor on {probe.name}",
        ),
    ),
)
"""Read from top to bottom: which ways were answered, and what that means. One way that passes clears the other's."""


def _filtered(source: str, target: str, probe: Probe) -> Finding:
    first, second = (probe.here, probe.there) if source == "this node" else (probe.there, probe.here)
    return Finding(
        State.FAILED,
        f"protocol 4 from {source} to {target} is filtered; the other direction and plain packets pass",
        f"let IP protocol 4 pass from {first} to {second} on the routers and firewalls on the way, and in OUTPUT of "
        "the one and INPUT of the other",
    )


def _worst(findings: Iterable[Finding], well: Callable[[int], str]) -> Finding:
    every = tuple(findings)
    bad = [each for state in (State.FAILED, State.WARNING) for each in every if each.state is state]
    if not bad:
        return ok(well(len(every)))
    more = f"; and {len(bad) - 1} more nodes like that" if len(bad) > 1 else ""
    return Finding(bad[0].state, bad[0].detail + more, bad[0].fix)


def _unprobed(facts: Facts) -> Finding | None:
    if facts.unprobed is not None:
        return skipped(facts.unprobed)
    return None if facts.probes else skipped("no node is reached through a tunnel, or no agent says so")


def protocol(facts: Facts) -> Finding:
    """Say which direction of protocol 4 is filtered, by what was answered."""
    behind = sum(bool(each["prefixes"]) for row in facts.tunnels for each in row["remotes"])
    more = f"; {behind - len(facts.probes)} more were not asked" if behind > len(facts.probes) else ""
    return _unprobed(facts) or _worst(
        map(_protocol, facts.probes), lambda count: f"protocol 4 passes to {count} nodes and back{more}"
    )


def _protocol(probe: Probe) -> Finding:
    return next(say for applies, say in FILTERED if applies(probe.ways))(probe)


def path_mtu(facts: Facts) -> Finding:
    """Say how large a packet gets through to other nodes, and who stands in the way of larger ones."""
    return _unprobed(facts) or _worst(map(_path_mtu, facts.probes), "full packets get through to {} nodes".format)


def _path_mtu(probe: Probe) -> Finding:
    if probe.largest >= probe.full:
        return ok(f"{probe.full} bytes get through to {probe.name}")
    if Way.BOTH not in probe.ways:
        return skipped(f"nothing gets through the tunnel to {probe.name}")
    told = [f"{each.router} says that it passes on {each.mtu} bytes" for each in probe.told]
    silence = "and nobody says so: an MTU black hole, where connections hang"
    fit = max((each.mtu for each in probe.told if each.mtu), default=probe.largest)
    return Finding(
        State.FAILED,
        f"packets of {probe.full} bytes do not reach {probe.name} ({probe.there}), those of {probe.largest} do; "
        + ("; ".join(told) or silence),
        f"raise the MTU of the path to {probe.full}; or lower that of this node's uplink to {fit} (ip link set dev "
        f'UPLINK mtu {fit}): the agent makes the tunnel follow; and let ICMP "fragmentation needed" pass',
    )
