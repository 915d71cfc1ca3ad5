"""ExaBGP's events, JSON lines of the child, as the speaker's words; UPDATEs are no JSON, see `exabgp_updates`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any, TypeAlias

from bgp.drops import Drop, PacketsDropped
from bgp.notification import words
from bgp.types import (
    ConnectFailed,
    DialFailure,
    Endpoint,
    Family,
    GracefulRestart,
    Heard,
    IPAddress,
    MessagesCounted,
    Notification,
    NotificationReceived,
    NotificationSent,
    Open,
    OpenReceived,
    OpenSent,
    PeerDown,
    PeerUp,
    RefreshHeard,
    RefreshStage,
    SessionState,
    StateChanged,
)


class Rubbish(ValueError):  # noqa: N818 - named for what it is; the caller ends the child
    """A line that is not what a child of ours would write."""


# --- what the child says of itself


@dataclass(frozen=True, slots=True)
class Configured:
    """The child holds the sessions that it was told to hold, or says why not."""

    error: str | None


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """ExaBGP did not understand a command, which is a mistake of ours."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The child's answer to a ping."""

    number: int


@dataclass(frozen=True, slots=True)
class CannotListen:
    """The child cannot have its port."""

    address: str
    port: int
    reason: str

    @property
    def sentence(self) -> str:
        """What stands against it, and what to do."""
        if "in use" in self.reason:
            return (
                f"port {self.port} of {self.address} is in use by another program, so BGP holds no session; "
                f"stop that program (`ss -ltnp sport = :{self.port}` names it) or choose another listenPort"
            )
        if "invalid address" in self.reason:
            return (
                f"{self.address} is no address of this host, so BGP cannot listen on its port {self.port}; "
                "give the node the address that its interface has"
            )
        return f"BGP cannot listen on {self.address} port {self.port}: {self.reason}"


Answer: TypeAlias = Configured | CommandRefused | Alive | CannotListen | PacketsDropped


# --- from the child


def heard(line: str | bytes) -> tuple[Heard | Answer, ...]:
    """Return what one line says; nothing for an event that nobody needs.

    Raises:
        Rubbish: whatever is wrong with the line; no other error comes out of any input.
    """
    try:
        event = json.loads(line)
        reader = READERS.get(event["type"])
        return tuple(reader(event)) if reader else ()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
        raise Rubbish(f"the BGP child wrote {text[:120]!r}: {type(error).__name__}: {error}") from error


def _peer(event: Mapping[str, Any]) -> IPAddress:
    return ip_address(event["neighbor"]["address"]["peer"])


def _state(event: Mapping[str, Any]) -> Iterator[Heard]:
    state = event["neighbor"]["state"]
    if state == "up":
        yield _up(_peer(event), event["neighbor"].get("session") or {})
    elif state == "down":
        reason = str(event["neighbor"]["reason"])
        yield PeerDown(_peer(event), down_in_words(reason), notified=_closing_code(reason) is not None)


def _up(peer: IPAddress, session: Mapping[str, Any]) -> PeerUp:
    def endpoint(name: str) -> Endpoint | None:
        return Endpoint(ip_address(session[name][0]), int(session[name][1])) if name in session else None

    dialled = session.get("dialled")
    return PeerUp(
        peer,
        _number(session.get("hold_time")),
        endpoint("local"),
        endpoint("remote"),
        None if dialled is None else bool(dialled),
    )


def _closing_code(reason: str) -> Notification | None:
    """Return the NOTIFICATION of a reason as `notification received (6,2)`."""
    for start in ("notification received (", "notification sent ("):
        if reason.startswith(start):
            code, _, subcode = reason[len(start) :].rstrip(")").partition(",")
            return Notification(int(code), int(subcode))
    return None


def down_in_words(reason: str) -> str:
    """Say in our words why ExaBGP took a session down."""
    notification = _closing_code(reason)
    if notification:
        who = "peer said" if "received" in reason else "we said"
        return f"{who} {words(notification)}"
    return next((ours for theirs, ours in DOWN.items() if reason.startswith(theirs)), reason or "connection lost")


DOWN = {
    "closing connection": "connection lost",
    "closing outgoing connection as we have another incoming": "both sides dialled; the other connection stays",
    "graceful restarted negotiated": "settings changed",
    "stop, message [removed]": "peer removed from the settings",
    "stop, message [shutting down]": "our BGP process ends",
    "connection received before": "both sides dialled; the other connection stays",
}
"""How ExaBGP's reasons begin, and what they mean."""

STATES = {"OPENSENT": SessionState.OPEN_SENT, "OPENCONFIRM": SessionState.OPEN_CONFIRM}


def _fsm(event: Mapping[str, Any]) -> Iterator[Heard]:
    state = STATES.get(event["neighbor"]["state"])
    if state:
        yield StateChanged(_peer(event), state)


def _dial(event: Mapping[str, Any]) -> Iterator[Heard]:
    failure = FAILURES.get(event["error"], DialFailure.OTHER)
    yield ConnectFailed(ip_address(event["peer"]), failure, str(event["reason"]))


FAILURES = {
    "ECONNREFUSED": DialFailure.REFUSED,
    "ENETUNREACH": DialFailure.NO_ROUTE,
    "EHOSTUNREACH": DialFailure.UNREACHABLE,
    "ETIMEDOUT": DialFailure.NO_ANSWER,
}
"""What the names of connect(2)'s errors mean."""


def _drops(event: Mapping[str, Any]) -> Iterator[Answer]:
    yield PacketsDropped({Drop(name): int(count) for name, count in event["counts"].items()})


def _open(event: Mapping[str, Any]) -> Iterator[Heard]:
    said = event["neighbor"]["open"]
    # Received capabilities have their number as key, sent ones their name.
    known = [each for each in said["capabilities"].values() if isinstance(each, dict)]
    asn = next((each["asn4"] for each in known if "asn4" in each), said["asn"])
    restart = next((each for each in known if each.get("name") == "graceful restart"), None)
    offered = Open(
        int(asn),
        int(said["hold_time"]),
        IPv4Address(said["router_id"]),
        tuple(filter(None, map(_capability, known))),
        _graceful_restart(restart) if restart else None,
    )
    sent = event["neighbor"]["direction"] == "send"
    yield OpenSent(_peer(event), offered) if sent else OpenReceived(_peer(event), offered)


def _capability(said: Mapping[str, Any]) -> str:
    """Say what a capability is, with its values in brackets; nothing of one that is not on the wire."""
    if "host-name" in said:  # ExaBGP lists its own although it has no name to send
        return f"host name ({said['host-name']})" if said["host-name"] else ""
    name = str(said.get("name", "unknown"))
    if name == "unknown":
        return f"unknown ({said.get('value', said.get('iana', '?'))})"
    values = {
        "multiprotocol": lambda: ", ".join(map(str, said["families"])),
        "graceful restart": lambda: f"{said['time']} s",
        "asn4": lambda: f"AS {said['asn4']}",
    }.get(name)
    return f"{NAMES.get(name, name)} ({values()})" if values else NAMES.get(name, name)


NAMES = {
    "asn4": "four-octet AS",
    "addpath": "ADD-PATH",
    "route-refresh": "route refresh",
    "enhanced-route-refresh": "enhanced route refresh",
}
"""ExaBGP's names of capabilities where the RFCs have others."""


def _graceful_restart(said: Mapping[str, Any]) -> GracefulRestart:
    # ExaBGP calls the R bit "forwarding", and each family's F bit "restart".
    flags = {str(family).replace("/", " "): bool(bits) for family, bits in said["address-family-flags"].items()}
    return GracefulRestart(int(said["time"]), bool(said["restart-flags"]), flags)


def _notification(event: Mapping[str, Any]) -> Iterator[Heard]:
    if "neighbor" not in event:  # "shutdown", the last line of all
        return
    said = event["neighbor"]["notification"]
    sent = event["neighbor"]["direction"] == "send"
    code, subcode, text = int(said["code"]), int(said["subcode"]), str(said.get("message", ""))
    communication = text.partition('Shutdown Communication: "')[2].rstrip('"')
    if sent and (code, subcode) in COMMUNICATIVE:
        communication = text[1:]  # what we send is told as it is: the length comes first
    data = "" if communication else str(said.get("data", "")).removeprefix("0x").lower()
    notification = Notification(code, subcode, communication, data)
    peer = _peer(event)
    yield NotificationSent(peer, notification) if sent else NotificationReceived(peer, notification)


COMMUNICATIVE = {(6, 2), (6, 4)}
"""The NOTIFICATIONs that may carry a text for people (RFC 9003 section 2)."""


def _route_refresh(event: Mapping[str, Any]) -> Iterator[Heard]:
    yield RefreshHeard(ip_address(event["peer"]), Family(event["family"]), RefreshStage(event["stage"]))


def _number(given: Any) -> int | None:
    return None if given is None else int(given)


def _pong(event: Mapping[str, Any]) -> Iterator[Heard | Answer]:
    yield Alive(int(event["number"]))
    for address, counts in event["counters"].items():
        sent = {name[len("send-") :]: int(n) for name, n in counts.items() if name.startswith("send-")}
        received = {name[len("receive-") :]: int(n) for name, n in counts.items() if name.startswith("receive-")}
        yield MessagesCounted(ip_address(address), sent, received)


def _listen(event: Mapping[str, Any]) -> Iterator[Answer]:
    yield CannotListen(str(event["address"]), int(event["port"]), str(event["reason"]))


def _configured(event: Mapping[str, Any]) -> Iterator[Answer]:
    error = event["error"]
    yield Configured(None if error is None else str(error))


def _refused(_: Mapping[str, Any]) -> Iterator[Answer]:
    yield CommandRefused()


READERS = {
    "state": _state,
    "fsm": _fsm,
    "open": _open,
    "route-refresh": _route_refresh,
    "notification": _notification,
    "dial": _dial,
    "drops": _drops,
    "pong": _pong,
    "listen": _listen,
    "configured": _configured,
    "refused": _refused,
}
"""What to make of each type of event."""
