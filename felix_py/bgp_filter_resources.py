"""BGPFilter from Calico-shaped documents to filters: rules of four lists, each with what it asks for and does."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

from bgp import communities
from bgp.communities import Community
from bgp.filters import (
    MOST_OPERATIONS,
    Action,
    AddCommunity,
    Filter,
    Operation,
    Operator,
    PrependAsPath,
    Rule,
    SetPriority,
)
from felix_py.fields import AS_NUMBER, Reader, as_number, one_of, text, within
from felix_py.model import IPNetwork

RULE_FIELDS = {
    "action", "asPathPrefix", "cidr", "communities", "interface", "matchOperator", "operations", "peerType",
    "prefixLength", "priority", "source",
}  # fmt: skip

COMMUNITY = "a community, as 64512:100 or 64512:100:7"

PRIORITY = "a priority from 1 to 2147483646"
"""Calico's range: 2147483647 less the priority has to be a local preference above 0."""


class List(NamedTuple):
    """What the rules of one list may say of prefixes."""

    network: Callable[[str], IPNetwork]
    example: str
    bits: int


V4 = List(IPv4Network, "an IPv4 network without host bits, as 10.65.0.0/16", 32)
V6 = List(IPv6Network, "an IPv6 network without host bits, as fd00:65::/48", 128)
LISTS = {"exportV4": V4, "importV4": V4, "exportV6": V6, "importV6": V6}


def bgp_filter(reader: Reader, name: str, spec: Mapping[str, Any]) -> Filter:
    """Read a BGPFilter."""
    reader.known(spec, "spec", set(LISTS))
    rules = {
        name_: tuple(
            _rule(reader, rule, path, kind) for path, rule in reader.mappings(spec, name_, "spec", "a list of rules")
        )
        for name_, kind in LISTS.items()
    }
    return Filter(
        name,
        import_v4=rules["importV4"],
        export_v4=rules["exportV4"],
        import_v6=rules["importV6"],
        export_v6=rules["exportV6"],
    )


def _rule(reader: Reader, rule: Mapping[str, Any], path: str, kind: List) -> Rule:
    reader.known(rule, path, RULE_FIELDS)
    action = reader.value(rule, "action", path, Action, "Accept or Reject")
    if action is Action.REJECT and rule.get("operations"):
        reader.fault(f"{path}.operations", "changes routes that are rejected; remove it, or give action Accept")
    for name, other in (("matchOperator", "cidr"), ("cidr", "matchOperator"), ("prefixLength", "cidr")):
        if rule.get(name) is not None and rule.get(other) is None:
            reader.fault(f"{path}.{other}", f"is missing; {name} needs it")
    names = reader.mapping(rule, "communities", f"{path}.communities", required=False)
    reader.known(names, f"{path}.communities", {"values"})
    return Rule(
        action=action,
        cidr=reader.value(rule, "cidr", path, lambda raw: kind.network(text(raw)), kind.example, None),
        operator=reader.value(rule, "matchOperator", path, Operator, "Equal, NotEqual, In or NotIn", None),
        prefix_length=_lengths(reader, rule, path, kind),
        source=reader.value(rule, "source", path, one_of("RemotePeers"), "RemotePeers", None),
        interface=reader.value(rule, "interface", path, text, "an interface, as eth0 or eth*", None),
        peer_type=reader.value(rule, "peerType", path, one_of("eBGP", "iBGP"), "eBGP or iBGP", None),
        communities=reader.items(names, "values", f"{path}.communities", _community, COMMUNITY),
        as_path_prefix=reader.items(rule, "asPathPrefix", path, as_number, AS_NUMBER),
        priority=reader.value(rule, "priority", path, within(1, 2147483646), PRIORITY, None),
        operations=_operations(reader, rule, path),
    )


def _lengths(reader: Reader, rule: Mapping[str, Any], path: str, kind: List) -> tuple[int | None, int | None]:
    lengths, path = reader.mapping(rule, "prefixLength", f"{path}.prefixLength", required=False), f"{path}.prefixLength"
    reader.known(lengths, path, {"min", "max"})
    expected = f"a prefix length from 0 to {kind.bits}"
    low, high = (reader.value(lengths, name, path, within(0, kind.bits), expected, None) for name in ("min", "max"))
    if low is not None and high is not None and low > high:
        reader.fault(f"{path}.min", f"is {low}, longer than max {high}, so no prefix matches; give at most {high}")
    return low, high


def _community(raw: object) -> Community:
    return communities.parse(text(raw))


def _operations(reader: Reader, rule: Mapping[str, Any], path: str) -> tuple[Operation, ...]:
    given = [
        _operation(reader, operation, where)
        for where, operation in reader.mappings(rule, "operations", path, "a list of operations")
    ]
    if len(given) > MOST_OPERATIONS:
        reader.fault(f"{path}.operations", f"has {len(given)} operations; give at most {MOST_OPERATIONS}")
    return tuple(each for each in given if each is not None)


def _operation(reader: Reader, operation: Mapping[str, Any], path: str) -> Operation | None:
    reader.known(operation, path, set(OPERATIONS))
    if len(operation) != 1:
        reader.fault(path, f"has {len(operation)} operations; give one of {', '.join(sorted(OPERATIONS))}")
        return None
    name = next(iter(operation))
    if name not in OPERATIONS:
        return None
    return OPERATIONS[name](reader, reader.mapping(operation, name, f"{path}.{name}"), f"{path}.{name}")


def _add_community(reader: Reader, inner: Mapping[str, Any], path: str) -> Operation | None:
    reader.known(inner, path, {"value"})
    community = reader.value(inner, "value", path, _community, COMMUNITY)
    return AddCommunity(community) if community is not None else None


def _prepend_as_path(reader: Reader, inner: Mapping[str, Any], path: str) -> Operation | None:
    reader.known(inner, path, {"prefix"})
    numbers = reader.items(inner, "prefix", path, as_number, AS_NUMBER)
    if not inner.get("prefix"):
        reader.fault(f"{path}.prefix", "is missing; give AS numbers, as [64512]")
    return PrependAsPath(numbers) if numbers else None


def _set_priority(reader: Reader, inner: Mapping[str, Any], path: str) -> Operation | None:
    reader.known(inner, path, {"value"})
    priority = reader.value(inner, "value", path, within(1, 2147483646), PRIORITY)
    return SetPriority(priority) if priority is not None else None


OPERATIONS: Mapping[str, Callable[[Reader, Mapping[str, Any], str], Operation | None]] = {
    "addCommunity": _add_community,
    "prependASPath": _prepend_as_path,
    "setPriority": _set_priority,
}
"""By the one field that an operation has."""
