"""The speaker's words as ExaBGP's text: its environment, its configuration, its commands."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, NamedTuple, assert_never

from bgp import exabgp_attributes
from bgp.notification import CEASE
from bgp.peering import PeerSettings
from bgp.speaker import RESTART_TIME, SpeakerSettings, reachable
from bgp.types import (
    FAMILY,
    Announce,
    AnnounceEndOfRib,
    Family,
    HoldSessions,
    IPAddress,
    IPNetwork,
    Refresh,
    Said,
    Teardown,
    Withdraw,
)

PREFIXES_AT_ONCE = 500
"""Prefixes in one command: well under the megabyte that a line may have."""


def environment(settings: SpeakerSettings) -> dict[str, str]:
    """Return the environment variables of a child; a change of one needs a new child."""
    own = (each for each in (settings.local_address, settings.local_address6) if each is not None)
    return {
        "exabgp.tcp.bind": " ".join(map(str, settings.listen_on or own)),
        "exabgp.tcp.port": str(settings.listen_port),
        "exabgp.daemon.daemonize": "false",
        "exabgp.daemon.drop": "true",
        "exabgp.log.destination": "stderr",
        "exabgp.log.level": "ERROR",
        "exabgp.log.short": "true",
        "exabgp.api.ack": "true",
        "exabgp.api.cli": "false",
        "exabgp.api.encoder": "json",
    }


def configuration(settings: SpeakerSettings) -> str:
    """Return ExaBGP's configuration: the sessions, and nothing of what is announced. It holds passwords."""
    # A process must be named and have a program; the child is its own, and runs none.
    head = "process agent {\n  run /bin/true;\n  encoder json;\n}\n"
    return head + "".join(_neighbor(settings, peer) for peer in reachable(settings))


def _neighbor(settings: SpeakerSettings, peer: PeerSettings) -> str:
    # manual-eor: ExaBGP's own End-of-RIB comes before our announcements and would flush them at the peer (RFC 4724).
    # adj-rib-out: without it announcements are lost when a session flaps.
    return f"""neighbor {peer.address} {{
{_description(peer)}  local-address {_source(settings, peer)};
  router-id {settings.router_id};
  local-as {peer.local_asn or settings.asn};
  peer-as {peer.asn};
  hold-time {peer.hold_time};
  connect {peer.port};
  passive {"true" if peer.passive else "false"};
{_password(peer)}{_ttl_security(peer)}  manual-eor true;
  adj-rib-in false;
  adj-rib-out true;
  group-updates true;
  family {{
{"".join(f"    {family};{NEWLINE}" for family in peer.carried)}  }}
{_extended_next_hop(peer)}  capability {{
    asn4 enable;
    route-refresh enable;
    graceful-restart {peer.restart_time or RESTART_TIME};
  }}
  api {{
    processes [ agent ];
    neighbor-changes;
    fsm;
    receive {{
      parsed;
      open;
      update;
      notification;
    }}
    send {{
      parsed;
      open;
      notification;
    }}
  }}
}}
"""


NEWLINE = "\n"

KEEPALIVE, ANY_SOURCE = "keepalive", "any-source"
"""Words of a description, which ExaBGP carries and our own part of the child reads."""

HIGHEST_TTL = 255
"""What a GTSM speaker sends, so that each router on the way is seen (RFC 5082 section 3)."""


def _description(peer: PeerSettings) -> str:
    words = (*((KEEPALIVE, str(peer.keepalive)) if peer.keepalive else ()), *((ANY_SOURCE,) if peer.any_source else ()))
    return f'  description "{" ".join(words)}";\n' if words else ""


def _source(settings: SpeakerSettings, peer: PeerSettings) -> IPAddress:
    own = settings.local_address if peer.address.version == 4 else settings.local_address6  # noqa: PLR2004 - IPv4
    return peer.source or own or settings.local_address


def _password(peer: PeerSettings) -> str:
    """Return the password as base64: in plain text, ExaBGP's grammar has no way to write a quote."""
    if peer.password is None:
        return ""
    return f'  md5-password "{b64encode(peer.password.encode()).decode()}";\n  md5-base64 true;\n'


def _ttl_security(peer: PeerSettings) -> str:
    if peer.ttl_hops is None:
        return ""
    return f"  outgoing-ttl {HIGHEST_TTL};\n  incoming-ttl {HIGHEST_TTL + 1 - peer.ttl_hops};\n"


def _extended_next_hop(peer: PeerSettings) -> str:
    """Return the offer of IPv4 prefixes with an IPv6 next hop (RFC 8950), where both families share a session."""
    over_ipv6 = peer.address.version == 6  # noqa: PLR2004 - the version of IP
    if not over_ipv6 or set(peer.carried) != set(Family):
        return ""
    return "  nexthop {\n    ipv4 unicast ipv6;\n  }\n"


def first_line(settings: SpeakerSettings) -> str:
    """Return what a child must be told before anything else, and whenever sessions change."""
    return f"%%config {json.dumps(configuration(settings))}"


def ping(number: int, *, counters: bool = False) -> str:
    """Return what an alive child answers, with its counts of messages where they are asked for."""
    return f"%%ping {number}{' counters' if counters else ''}"


def close(peer: IPAddress, code: int, subcode: int, data: bytes, session: int | None = None) -> str:
    """Return what closes a session with a NOTIFICATION; with a number, only that session of the peer."""
    return _order("close", peer, code=code, subcode=subcode, data=data.hex(), session=session)


def _order(verb: str, peer: IPAddress, **details: Any) -> str:
    """Return an order about the session of one peer; one that is not up by then takes no notice."""
    return f"%%{verb} {json.dumps({'peer': str(peer), **details})}"


def _cease(goodbye: Teardown) -> dict[str, Any]:
    data = communication(goodbye.message) if goodbye.message else b""
    return {"code": CEASE, "subcode": goodbye.subcode, "data": data.hex()}


def communication(text: str) -> bytes:
    """Return a text for people as a Cease carries it: at most 255 octets of UTF-8, none cut in two (RFC 9003)."""
    octets = text.encode()[:255].decode(errors="ignore").encode()
    return bytes((len(octets),)) + octets


def lines(said: Said, settings: SpeakerSettings) -> Iterator[str]:
    """Yield the lines that say it to the child.

    Args:
        said: one thing.
        settings: those in force; the sessions that the child holds.
    """
    match said:
        case HoldSessions(partings):
            yield from (_order("part", each.peer, **_cease(each)) for each in partings)
            yield first_line(settings)
        case Announce(prefixes, peers, attributes):
            rest = exabgp_attributes.text(attributes)
            for to, some in _parts(prefixes, peers, settings, attributes.next_hop):
                yield f"{to.whom}announce attributes next-hop {to.next_hop} {rest} nlri {some}"
        case Withdraw(prefixes, peers):
            for to, some in _parts(prefixes, peers, settings, None):
                yield f"{to.whom}withdraw attributes next-hop {to.next_hop} nlri {some}"
        case AnnounceEndOfRib(peer):
            carried = next((each.carried for each in settings.peers if each.address == peer), ())
            yield from (_order("eor", peer, family=family) for family in carried)
        case Teardown(peer):
            yield _order("close", peer, **_cease(said), session=None)
        case Refresh(peer, family):
            yield _order("refresh", peer, family=family)
        case _:
            assert_never(said)


class _To(NamedTuple):
    """Whom a command is for, as it begins, and the next hop that they are told."""

    whom: str
    next_hop: str


def _parts(
    prefixes: tuple[IPNetwork, ...], peers: tuple[IPAddress, ...], settings: SpeakerSettings, next_hop: IPAddress | None
) -> Iterator[tuple[_To, str]]:
    """Yield commands' worth of prefixes of one family, with whom they are for."""
    for family in Family:
        of_family = [prefix for prefix in prefixes if FAMILY[prefix.version] is family]
        if of_family:
            for to in _addressees(family, peers, settings, next_hop):
                for start in range(0, len(of_family), PREFIXES_AT_ONCE):
                    yield to, " ".join(map(str, of_family[start : start + PREFIXES_AT_ONCE]))


def _addressees(
    family: Family, peers: tuple[IPAddress, ...], settings: SpeakerSettings, next_hop: IPAddress | None
) -> Iterator[_To]:
    """Yield whom a family is told to: all at once, or in two parts where `self` would not mean the same to them."""
    if next_hop is not None:
        yield _To(_selector(peers), str(next_hop))
        return
    whom = peers or tuple(peer.address for peer in reachable(settings))
    over_own = tuple(address for address in whom if FAMILY[address.version] is family)
    over_other = tuple(address for address in whom if FAMILY[address.version] is not family)
    if over_own:
        yield _To(_selector(peers if not over_other else over_own), "self")
    # To ExaBGP `self` is its end of the connection, which is no next hop of another family.
    ours = settings.local_address if family is Family.IPV4_UNICAST else settings.local_address6
    if over_other and ours is not None:
        yield _To(_selector(peers if not over_own else over_other), str(ours))


def _selector(peers: tuple[IPAddress, ...]) -> str:
    return " , ".join(f"neighbor {peer}" for peer in peers) + " " if peers else ""
