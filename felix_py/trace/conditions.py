"""Whether a rule of a packet filter, as nft prints it, is about a packet, as far as it is understood; pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple, TypeAlias

from felix_py.kernel.flow import PROTOCOLS, WITH_PORTS
from felix_py.model import IPAddress
from felix_py.trace import encapsulations
from felix_py.trace.words import Packet


class Passage(NamedTuple):
    """A packet at a hook: `input`, `forward` or `output`, with the interfaces that it comes and goes by."""

    packet: Packet
    hook: str
    arrives: str | None = None
    leaves: str | None = None


class Unknown(NamedTuple):
    """Nobody can say whether a rule is about a packet; `why` goes on after the rule."""

    why: str


BEYOND = Unknown("is beyond what trace understands")

ENDS: Mapping[str, str] = {
    "accept": "accept",
    "drop": "drop",
    "reject": "drop",
    "jump": "jump",
    "goto": "jump",
}
"""Words at which the conditions of a rule end, and what comes then."""

COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "<": int.__lt__,
    "<=": int.__le__,
    ">": int.__gt__,
    ">=": int.__ge__,
}
"""Between a port and a value; `!=` is for every condition."""


NO_VALUES = frozenset({".", "&", "|", "^", "and", "or", "map", "vmap"})
"""What stands after a condition that is more than a comparison with values."""


def verdict(words: Sequence[str]) -> str | None:
    """Return what a rule does: `accept`, `drop` or `jump`; None for others, as counting."""
    return next((ENDS[word] for word in words if word in ENDS), None)


def holds(words: Sequence[str], passage: Passage) -> bool | Unknown:
    """Say whether a rule's conditions hold for a packet.

    One that surely does not hold decides, whatever the others say.

    Args:
        words: of the rule.
        passage: the packet and its hook.
    """
    doubt: Unknown | None = None
    for found in _conditions(list(words), passage):
        if found is False:
            return False
        if isinstance(found, Unknown):
            doubt = doubt or found
    return doubt or True


def _conditions(rest: list[str], passage: Passage) -> Iterator[bool | Unknown]:
    """Yield what comes of each condition, to the rule's verdict or the first condition that is not understood."""
    while rest and rest[0] not in ENDS:
        if rest[0] == "counter":
            del rest[: 5 if rest[1:2] == ["packets"] else 1]
            continue
        known = next((name for name in CONDITIONS if tuple(rest[: len(name)]) == name), None)
        if known is None:
            yield _of_header(rest[0], passage.packet)
            return
        del rest[: len(known)]
        operator = rest.pop(0) if rest[:1] and rest[0] in ("!=", *COMPARISONS) else ""
        values = _values(rest)
        if values is None:
            yield BEYOND
            return
        found = CONDITIONS[known](_Wanted(values, operator), passage)
        yield found if isinstance(found, Unknown) or operator != "!=" else not found
    if rest and ENDS[rest[0]] == "jump":
        yield Unknown("is not followed")


def _values(rest: list[str]) -> tuple[str, ...] | None:
    """Take one value off the rest of a rule, or a set of them in braces; None where it is no value of its own."""
    if not rest or rest[0].startswith("@") or rest[0] in NO_VALUES:
        return None
    if rest[0] != "{":
        return (rest.pop(0).strip('"'),)
    if "}" not in rest:
        return None
    end = rest.index("}")
    values = tuple(each.strip('",') for each in rest[1:end])
    del rest[: end + 1]
    return values if "." not in values and ":" not in values else None


class _Wanted(NamedTuple):
    values: tuple[str, ...]
    operator: str


def _of_header(word: str, packet: Packet) -> bool | Unknown:
    """Judge a condition on the header of a protocol by the protocol alone: packets of others do not have it."""
    flow = encapsulations.flow_of(packet)
    if word not in PROTOCOLS or flow is None or flow.protocol == PROTOCOLS[word]:
        return BEYOND
    return False


def _interface(wanted: _Wanted, device: str | None) -> bool:
    return device is not None and any(
        device.startswith(each[:-1]) if each.endswith("*") else device == each for each in wanted.values
    )


def _address(wanted: _Wanted, address: IPAddress | None, version: int) -> bool | Unknown:
    """Judge an address; a packet of the other version of IP has none of this kind, equal or not."""
    if address is None or address.version != version:
        return wanted.operator == "!="
    try:
        return any(_within(each, address) for each in wanted.values)
    except ValueError:
        return BEYOND


def _within(text: str, address: IPAddress) -> bool:
    first, _, last = text.partition("-")
    if last:
        return int(ip_address(first)) <= int(address) <= int(ip_address(last))
    return address in ip_network(text, strict=False)


def _protocol(wanted: _Wanted, packet: Packet, version: int | None = None) -> bool | Unknown:
    if version not in (None, packet.destination.version):
        return wanted.operator == "!="
    numbers = {PROTOCOLS.get(each, int(each) if each.isdigit() else -1) for each in wanted.values}
    flow = encapsulations.flow_of(packet)
    if flow is not None:
        return flow.protocol in numbers if -1 not in numbers else BEYOND
    tunnels = {each.protocol for each in encapsulations.TABLE.values() if each.port is None}
    # A packet of which nobody says what it is, is at least none of a tunnel.
    return False if numbers <= tunnels else _unsaid(packet)


def _port(wanted: _Wanted, packet: Packet, protocols: frozenset[int], *, source: bool) -> bool | Unknown:
    flow = encapsulations.flow_of(packet)
    if flow is None:
        return _unsaid(packet)
    if flow.protocol not in protocols:
        return wanted.operator == "!="  # what is no packet of the protocol does not match, equal or not
    port = flow.source_port if source else flow.destination_port
    if port is None:
        return _unsaid(packet, "--source-port" if source else "--port")
    try:
        return any(_compared(port, each, wanted.operator) for each in wanted.values)
    except ValueError:
        return BEYOND


def _compared(port: int, text: str, operator: str) -> bool:
    if operator in COMPARISONS:
        return COMPARISONS[operator](port, int(text))
    first, _, last = text.partition("-")
    return int(first) <= port <= int(last or first)


def _unsaid(packet: Packet, *ports: str) -> Unknown:
    return Unknown(f"depends on what it carries; {encapsulations.unsaid(packet, *ports)}")


_Condition: TypeAlias = Callable[[_Wanted, Passage], bool | Unknown]


def _ports() -> Iterator[tuple[tuple[str, str], _Condition]]:
    named = ((name, frozenset({PROTOCOLS[name]})) for name in ("tcp", "udp", "sctp", "dccp", "udplite"))
    for name, protocols in (*named, ("th", WITH_PORTS)):
        for field in ("sport", "dport"):
            yield (name, field), _port_of(protocols, source=field == "sport")


def _port_of(protocols: frozenset[int], *, source: bool) -> _Condition:
    return lambda wanted, passage: _port(wanted, passage.packet, protocols, source=source)


CONDITIONS: Mapping[tuple[str, ...], _Condition] = {
    ("iifname",): lambda wanted, passage: _interface(wanted, passage.arrives),
    ("oifname",): lambda wanted, passage: _interface(wanted, passage.leaves),
    ("ip", "saddr"): lambda wanted, passage: _address(wanted, passage.packet.source, 4),
    ("ip", "daddr"): lambda wanted, passage: _address(wanted, passage.packet.destination, 4),
    ("ip6", "saddr"): lambda wanted, passage: _address(wanted, passage.packet.source, 6),
    ("ip6", "daddr"): lambda wanted, passage: _address(wanted, passage.packet.destination, 6),
    ("ip", "protocol"): lambda wanted, passage: _protocol(wanted, passage.packet, 4),
    ("ip6", "nexthdr"): lambda wanted, passage: _protocol(wanted, passage.packet, 6),
    ("meta", "l4proto"): lambda wanted, passage: _protocol(wanted, passage.packet),
    **dict(_ports()),
}
"""The conditions that are understood, as nft prints them."""
