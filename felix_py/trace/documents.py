"""Questions, answers and whole traces as JSON documents, and back: machines that ask each other agree on these."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from felix_py.kernel import flow as flows
from felix_py.kernel.flow import Flow
from felix_py.model import IPAddress
from felix_py.trace.encapsulations import TABLE
from felix_py.trace.words import Answer, Hop, Leg, Next, Packet, Question, Trace, Verdict

Document = dict[str, Any]

LARGEST = 65535
"""Bytes of an IP packet, RFC 791 section 3.1."""


class Unreadable(Exception):  # noqa: N818 - named for what it means: the document says nothing that we understand
    """A document is not what it should be; the sentence names the field."""


def packet(value: Packet) -> Document:
    """Return a packet as a document."""
    return {
        "source": _text(value.source),
        "destination": str(value.destination),
        "encapsulation": value.encapsulation,
        "size": value.size,
        **flow(value.flow),
        "inner": packet(value.inner) if value.inner is not None else None,
    }


def flow(value: Flow | None) -> Document:
    """Return protocol and ports as fields of a document."""
    if value is None:
        return {"protocol": None, "sourcePort": None, "destinationPort": None}
    protocol = flows.name_of(value.protocol)
    return {"protocol": protocol, "sourcePort": value.source_port, "destinationPort": value.destination_port}


def question(value: Question) -> Document:
    """Return a question as a document."""
    return {"packet": packet(value.packet), "via": _text(value.via)}


def answer(value: Answer) -> Document:
    """Return an answer as a document."""
    following = None
    if value.next is not None:
        following = {"address": str(value.next.address), "packet": packet(value.next.packet)}
    return {"legs": [leg(each) for each in value.legs], "next": following}


def leg(value: Leg) -> Document:
    """Return one look as a document."""
    return {
        "packet": packet(value.packet),
        "arrives": value.arrives,
        "route": value.route or None,
        "prefix": value.prefix,
        "table": value.table,
        "protocol": value.protocol,
        "from": value.origin,
        "why": list(value.why),
        "device": value.device,
        "mtu": value.mtu,
        "tunnel": value.tunnel,
        "verdict": str(value.verdict),
        "reason": value.reason,
        "notes": list(value.notes),
    }


def trace(value: Trace) -> Document:
    """Return a whole way as a document."""
    return {
        "delivered": value.delivered,
        "reason": value.reason,
        "mtu": value.mtu,
        "hops": [_hop(each) for each in value.hops],
    }


def _hop(value: Hop) -> Document:
    return {
        "machine": value.machine.name,
        "kind": value.machine.kind,
        "asked": value.unasked is None,
        "inferred": value.unasked,
        "legs": [leg(each) for each in value.legs],
    }


def _text(address: IPAddress | None) -> str | None:
    return str(address) if address is not None else None


# --- and back


def read_question(document: Mapping[str, Any]) -> Question:
    """Return the question that a document asks.

    Raises:
        Unreadable: naming what is wrong with it.
    """
    return Question(_packet(document.get("packet")), _address("via", document.get("via")))


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Return the answer that a document gives.

    Raises:
        Unreadable: naming what is wrong with it.
    """
    try:
        legs = tuple(_leg(each) for each in document["legs"])
        following = document["next"]
        if not legs:
            raise Unreadable("legs is empty")
        if following is None:
            return Answer(legs)
        address = ip_address(following["address"])
        return Answer(legs, Next(address, _packet(following["packet"])))
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"it is no answer to a trace: {error!r}") from error


def _leg(document: Mapping[str, Any]) -> Leg:
    return Leg(
        _packet(document["packet"]),
        Verdict(document["verdict"]),
        str(document["reason"]),
        document["arrives"],
        document["route"] or "",
        document["prefix"],
        document["protocol"],
        document["device"],
        document["mtu"],
        document["tunnel"],
        document["from"],
        tuple(document["why"]),
        tuple(document["notes"]),
        document.get("table"),  # an older agent does not say it
    )


def _packet(document: Any, depth: int = 0) -> Packet:
    if not isinstance(document, Mapping) or depth > 1:
        raise Unreadable("packet is no packet; give source and destination")
    destination = _address("destination", document.get("destination"))
    if destination is None:
        raise Unreadable("destination is missing; give an address")
    source = _address("source", document.get("source"))
    if source is not None and source.version != destination.version:
        raise Unreadable(f"source {source} and destination {destination} are of different versions of IP")
    size, kind, inner = (document.get(name) for name in ("size", "encapsulation", "inner"))
    if size is not None and (type(size) is not int or not 0 < size <= LARGEST):
        raise Unreadable(f"size is {size!r}; give 1 to {LARGEST} bytes")
    found = Packet(source, destination, None, None, size, _flow(document))
    if inner is None:
        return found
    if kind not in TABLE:
        raise Unreadable(f"encapsulation is {kind!r}; known are {', '.join(TABLE)}")
    return replace(found, inner=_packet(inner, depth + 1), encapsulation=str(kind))


def _flow(document: Mapping[str, Any]) -> Flow | None:
    protocol, *ports = (document.get(name) for name in ("protocol", "sourcePort", "destinationPort"))
    try:
        number = flows.protocol(str(protocol)) if protocol is not None else None
        source, target = (None if each is None else flows.port(str(each)) for each in ports)
        return flows.flow(number, source, target)
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _address(name: str, text: Any) -> IPAddress | None:
    if text is None:
        return None
    try:
        return ip_address(str(text))
    except ValueError as error:
        raise Unreadable(f"{name} is {text!r}; give an IP address") from error
