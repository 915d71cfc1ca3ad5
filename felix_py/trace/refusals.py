"""Why the kernel sends a packet nowhere: errno alone does not tell, so the neighbouring questions are asked too."""

import errno
from ipaddress import ip_network

from felix_py.kernel.objects import RouteType
from felix_py.kernel.wire import Refusal
from felix_py.model import IPAddress
from felix_py.trace import encapsulations, rules
from felix_py.trace.seams import Sight
from felix_py.trace.words import Packet

STRICT = "1"
"""Reverse path filter, Documentation/networking/ip-sysctl.rst: the route back has to leave by the same interface."""

OFF = "0"

REJECTING = {
    RouteType.BLACKHOLE: "a blackhole",
    RouteType.UNREACHABLE: "an unreachable route",
    RouteType.PROHIBIT: "a prohibiting route",
}


def explain(refused: Refusal, packet: Packet, device: str | None, sight: Sight) -> tuple[str, str | None]:
    """Return why a packet goes nowhere, and the prefix of the route that ends it, where there is one.

    Args:
        refused: what the kernel said.
        packet: what it was asked about.
        device: where the packet came in; None where this machine sends it.
        sight: to ask further.
    """
    flow = encapsulations.flow_of(packet)
    plain = sight.lookup(packet.destination, None, None, flow)
    if flow is not None:
        rule = rules.ending(packet, device, sight.rules(packet.destination.version))
        if rule is not None:
            return f"rule `{rule}` ends it", None
    if isinstance(plain, Refusal):
        return _destination(plain, packet.destination, sight)
    if device is not None:
        version = packet.destination.version
        forwarding = f"net/ipv{version}/conf/{device}/forwarding"
        if plain.type is not RouteType.LOCAL and sight.parameter(forwarding) == OFF:
            return f"this machine does not forward what comes in by {device}: {forwarding} is 0", None
        if packet.source is not None and (reason := _source(packet, packet.source, device, sight)):
            return reason, None
    return f"the kernel refuses it: {refused.text}", None


def _destination(refused: Refusal, destination: IPAddress, sight: Sight) -> tuple[str, str | None]:
    for kind, words in REJECTING.items():
        within = [each for each in sight.rejecting(kind, destination.version) if destination in each]
        if within:
            prefix = str(max(within, key=lambda each: each.prefixlen))
            return f"it ends in {words}, {prefix}", prefix
    if refused.code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"no route leads to {destination}", None
    return f"the kernel refuses to send to {destination}: {refused.text}", None


def _source(packet: Packet, source: IPAddress, device: str, sight: Sight) -> str | None:
    """Say why a packet from there cannot have come in by this interface."""
    flow = encapsulations.flow_of(packet)
    back = sight.lookup(source, None, None, flow.back() if flow is not None else None)
    if not isinstance(back, Refusal) and back.type is RouteType.LOCAL:
        return f"{source} is this machine's own address, and nobody else may send from it"
    modes = {sight.parameter(f"net/ipv4/conf/{each}/rp_filter") for each in ("all", device)}
    if isinstance(back, Refusal):
        whole = ip_network(source)
        return f"rp_filter: no route leads back to {whole.network_address}" if modes - {OFF, None} else None
    if STRICT in modes and back.device != device:
        return (
            f"rp_filter of {device} is strict: {source} came in there, but the route back to it leaves by {back.device}"
        )
    return None
