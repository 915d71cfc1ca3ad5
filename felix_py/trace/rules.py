"""What rules of policy routing make of a packet: which one led to its table, and which are in doubt; pure."""

from collections.abc import Iterable, Iterator

from felix_py.kernel import lookup_codec, rule_codec
from felix_py.kernel.rule_codec import Rule
from felix_py.trace import encapsulations
from felix_py.trace.words import Packet

PLAIN = frozenset({0, *rule_codec.TABLES})
"""Tables that every machine asks, and 0 for one that the kernel does not name."""


def leading(table: int, packet: Packet, device: str | None, rules: Iterable[Rule]) -> Rule | None:
    """Return the first rule that takes a packet and looks in the table that decided.

    Args:
        table: its number.
        packet: which one.
        device: by which it came in; None where this machine sends it.
        rules: of this machine, in their order.
    """
    return next((each for each in rules if each.table == table and _takes(each, packet, device)), None)


def ending(packet: Packet, device: str | None, rules: Iterable[Rule]) -> Rule | None:
    """Return the rule that ends a packet by its protocol or ports, as `prohibit` does; None where there is none."""
    ends = (each for each in rules if each.by_flow and each.action in rule_codec.REJECTING)
    return next((each for each in ends if _takes(each, packet, device)), None)


def doubts(table: int, packet: Packet, device: str | None, rules: Iterable[Rule]) -> Iterator[str]:
    """Yield a sentence for each rule that may lead a packet elsewhere than the kernel said; arguments as `leading`."""
    flow, version = encapsulations.flow_of(packet), packet.destination.version
    asked = lookup_codec.asked_as(flow, version)
    for rule in rules:
        if rule.table == table and _takes(rule, packet, device):
            return
        if not rule.by_flow:
            continue
        really = _takes(rule, packet, device)
        if really is None:
            ports = {"--port": rule.destination_ports, "--source-port": rule.source_ports}
            named = (option for option, wanted in ports.items() if wanted is not None)
            yield f"rule `{rule}` may lead it elsewhere: {encapsulations.unsaid(packet, *named)}"
        elif rule.takes(packet.destination, packet.source, device, asked) is not really:
            yield f"rule `{rule}` was not judged: a kernel can be asked about tcp, udp and icmp alone"


def _takes(rule: Rule, packet: Packet, device: str | None) -> bool | None:
    return rule.takes(packet.destination, packet.source, device, encapsulations.flow_of(packet))
