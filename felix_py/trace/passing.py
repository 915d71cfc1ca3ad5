"""One packet at one machine: what its kernel does with it, look by look, until it leaves or ends; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from felix_py.kernel import lookup_codec, ownership, rule_codec
from felix_py.kernel.lookup_codec import Found
from felix_py.kernel.objects import RouteType
from felix_py.kernel.rule_codec import Rule
from felix_py.kernel.wire import Refusal
from felix_py.model import IPAddress
from felix_py.trace import encapsulations, filters, refusals, rules
from felix_py.trace.conditions import Passage
from felix_py.trace.encapsulations import Encapsulation, Remote
from felix_py.trace.seams import Sight, TunnelFacts
from felix_py.trace.words import Answer, Leg, Next, Packet, Question, Verdict

LOOKS = 4
"""A machine unwraps a packet at most once and wraps it at most once; more is a fault of its routes."""

UNRESOLVED = frozenset({"none", "incomplete", "failed"})
"""States of a neighbour to which nothing can be sent."""


class _Look(NamedTuple):
    """A leg, and what it makes of the packet: handed on to `next`, or looked at again."""

    leg: Leg
    next: Next | None = None
    again: tuple[Packet, str | None] | None = None


def passing(question: Question, sight: Sight, tunnels: Mapping[str, TunnelFacts]) -> Answer:
    """Return what a machine does with a packet.

    Args:
        question: about what.
        sight: the machine's kernel.
        tunnels: what its agent knows of its tunnel devices, by name.
    """
    packet, device = question.packet, None
    if question.via is not None:
        device = _incoming(question, sight)
        nowhere = f"no interface has {question.via}, and {packet.source} is no pod of this machine"
        obstacle = nowhere if device is None else _obstacle(device, sight)
        if obstacle is not None:
            return Answer((Leg(packet, Verdict.DROPPED, f"it does not arrive: {obstacle}", device),))
    legs: list[Leg] = []
    for _ in range(LOOKS):
        look = _look(packet, device, sight, tunnels)
        legs.append(look.leg)
        if look.again is None:
            return Answer(tuple(legs), look.next)
        packet, device = look.again
    legs[-1] = replace(legs[-1], verdict=Verdict.DROPPED, reason="its routes lead from tunnel to tunnel without end")
    return Answer(tuple(legs))


def _incoming(question: Question, sight: Sight) -> str | None:
    """Return the interface by which a packet comes in: the one with the address that it was handed to, or its pod's."""
    for link in sight.links.values():
        if any(each.split("/")[0] == str(question.via) for each in link.addresses):
            return link.name
    flow = question.packet.flow.back() if question.packet.flow is not None else None
    back = sight.lookup(question.packet.source, None, None, flow) if question.packet.source is not None else None
    return back.device if isinstance(back, Found) and ownership.is_workload_device(back.device) else None


def _obstacle(device: str, sight: Sight) -> str | None:
    link = sight.links.get(device)
    if link is None:
        return f"{device} does not exist"
    if not link.up:
        return f"{device} is down"
    return None if link.running else f"{device} has no carrier"


def _look(packet: Packet, device: str | None, sight: Sight, tunnels: Mapping[str, TunnelFacts]) -> _Look:
    dropped = Leg(packet, Verdict.DROPPED, "", device)
    if reason := filters.on_entry(packet, device, filters.guarding(sight.table, sight.guard)):
        return _Look(replace(dropped, reason=reason))
    # With the interface that it came in by, the kernel judges the source as well, as it does with a real packet.
    found = sight.lookup(packet.destination, packet.source, device, encapsulations.flow_of(packet))
    if isinstance(found, Refusal):
        reason, prefix = refusals.explain(found, packet, device, sight)
        return _Look(replace(dropped, reason=reason, prefix=prefix, route=prefix or ""))
    if packet.source is None:
        packet = replace(packet, source=found.source)
    leg = replace(
        dropped,
        packet=packet,
        route=_route(found),
        prefix=str(found.prefix),
        protocol=ownership.protocol_name(found.protocol),
        table=rule_codec.table_name(found.table) if found.table else None,
    )
    leg = _by_rules(leg, found.table, list(sight.rules(packet.destination.version)))
    if found.type is not RouteType.UNICAST:
        return _arrived(leg, sight, tunnels)
    return _leaving(leg, found, sight, tunnels)


def _by_rules(leg: Leg, table: int, policy: Sequence[Rule]) -> Leg:
    """Add the rule of policy routing that led to a table, and those of which that cannot be said."""
    led = rules.leading(table, leg.packet, leg.arrives, policy) if table not in rules.PLAIN else None
    why = (f"rule `{led}` takes it",) if led is not None else ()
    return replace(leg, why=why, notes=tuple(rules.doubts(table, leg.packet, leg.arrives, policy)))


def _route(found: Found) -> str:
    name = "default" if found.prefix.prefixlen == 0 else str(found.prefix)
    words = [name] if found.type is not RouteType.LOCAL else ["local", str(found.prefix.network_address)]
    words += [f"via {found.via}"] if found.via is not None else []
    words += [f"table {found.table}"] if found.table not in rules.PLAIN else []
    return " ".join([*words, *([f"(one of {found.weights} next hops)"] if found.weights > 1 else [])])


def _arrived(leg: Leg, sight: Sight, tunnels: Mapping[str, TunnelFacts]) -> _Look:
    """Deliver a packet to this machine, or take it out of its tunnel."""
    packet = leg.packet
    judged = filters.others(Passage(packet, "input", leg.arrives), sight.chains)
    leg = replace(leg, notes=(*leg.notes, *judged.notes))
    if packet.inner is None or packet.encapsulation is None:
        if judged.dropped is not None:
            return _Look(replace(leg, reason=judged.dropped))
        return _Look(replace(leg, verdict=Verdict.DELIVERED, reason=f"{packet.destination} is here"))
    device = encapsulations.TABLE[packet.encapsulation].devices[packet.inner.destination.version]
    facts = tunnels.get(device, TunnelFacts())
    leg = replace(leg, tunnel=_tunnel(packet, facts.driver), device=device)
    # The programs of an ebpf tunnel take their packets before any filter sees them.
    filtered = None if facts.driver == "ebpf" else judged.dropped or filters.on_decapsulation(packet, sight.table)
    stranger = facts.allowed is not None and packet.source not in facts.allowed
    reason = (
        _obstacle(device, sight)
        or filtered
        or (f"{packet.source} is no node from which {device} takes packets" if stranger else None)
    )
    if reason is not None:
        return _Look(replace(leg, reason=reason, device=None))
    out = replace(leg, verdict=Verdict.DECAPSULATED, reason=f"{device} takes it out of the tunnel")
    return _Look(out, again=(packet.inner, device))


def _leaving(leg: Leg, found: Found, sight: Sight, tunnels: Mapping[str, TunnelFacts]) -> _Look:
    """Send a packet out of an interface, or into a tunnel."""
    packet, device = leg.packet, found.device or ""
    if obstacle := _obstacle(device, sight):
        return _Look(replace(leg, reason=obstacle, device=device))
    link = sight.links[device]
    leg = replace(leg, device=device, mtu=min(found.mtu or link.mtu, link.mtu))
    hook = "output" if leg.arrives is None else "forward"
    judged = filters.others(Passage(packet, hook, leg.arrives, device), sight.chains)
    leg = replace(leg, notes=(*leg.notes, *judged.notes))
    reason = judged.dropped
    if reason is None and leg.arrives is not None:
        reason = filters.on_exit(device, filters.guarding(sight.table, sight.guard))
    if reason is None and packet.size is not None and packet.size > (leg.mtu or 0):
        reason = f"{packet.size} bytes with don't fragment do not fit {device}, whose MTU is {leg.mtu}"
    if reason is not None:
        return _Look(replace(leg, reason=reason))
    kind = encapsulations.of_device(device)
    if kind is not None and found.via is not None and packet.inner is None:
        remote = found.via if kind.remote is Remote.GATEWAY else sight.forwarding(found.via, device)
        if remote is None:
            return _Look(replace(leg, reason=f"{device} has no forwarding entry for {found.via}: no node gets it"))
        return _wrapped(leg, kind, remote, sight, tunnels.get(device, TunnelFacts()))
    return _handed_on(leg, found.via or packet.destination, sight)


def _wrapped(leg: Leg, kind: Encapsulation, remote: IPAddress, sight: Sight, facts: TunnelFacts) -> _Look:
    size = None if leg.packet.size is None else leg.packet.size + kind.overhead[remote.version]
    outer = Packet(facts.local, remote, leg.packet, kind.name, size)
    if facts.local is None:
        underlay = sight.lookup(remote, None, None, encapsulations.flow_of(outer))
        outer = replace(outer, source=underlay.source if isinstance(underlay, Found) else None)
    verdict = replace(
        leg,
        verdict=Verdict.ENCAPSULATED,
        tunnel=_tunnel(outer, facts.driver),
        reason=f"{leg.device} wraps it for {remote}",
    )
    return _Look(verdict, again=(outer, None))


def _tunnel(outer: Packet, driver: str | None) -> str:
    by = f" by {driver}" if driver else ""
    return f"{outer.encapsulation}{by}, {outer.source} to {outer.destination}"


def _handed_on(leg: Leg, address: IPAddress, sight: Sight) -> _Look:
    device = leg.device or ""
    state = sight.neighbour(address, device)
    if state in UNRESOLVED:
        asked = "ARP" if address.version == 4 else "neighbour discovery"  # noqa: PLR2004 - IP versions
        return _Look(replace(leg, reason=f"{address} does not answer {asked} on {device}: neighbour {state}"))
    on = replace(leg, verdict=Verdict.FORWARDED, reason=f"handed to {address} on {device}, neighbour {state}")
    return _Look(on, next=Next(address, leg.packet))


def state_in_words(state: int) -> str:
    """Return a neighbour's state as `ip neighbour` calls it, from its number."""
    return lookup_codec.NEIGHBOUR_STATES.get(state, str(state))
