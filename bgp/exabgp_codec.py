"""The speaker's words as ExaBGP's text: its environment, its configuration, its commands."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import assert_never

from bgp.peering import PeerSettings
from bgp.speaker import RESTART_TIME, SpeakerSettings, reachable
from bgp.types import Announce, AnnounceEndOfRib, HoldSessions, Said, Withdraw

PREFIXES_AT_ONCE = 500
"""Prefixes in one command: well under the megabyte that a line may have."""


def environment(settings: SpeakerSettings) -> dict[str, str]:
    """Return the environment variables of a child; a change of one needs a new child."""
    return {
        "exabgp.tcp.bind": str(settings.local_address),
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
    """Return ExaBGP's configuration: the sessions, and nothing of what is announced."""
    # A process must be named and have a program; the child is its own, and runs none.
    head = "process agent {\n  run /bin/true;\n  encoder json;\n}\n"
    return head + "".join(_neighbor(settings, peer) for peer in reachable(settings))


def _neighbor(settings: SpeakerSettings, peer: PeerSettings) -> str:
    # manual-eor: ExaBGP's own End-of-RIB comes before our announcements and would flush them at the peer (RFC 4724).
    # adj-rib-out: without it announcements are lost when a session flaps.
    return f"""neighbor {peer.address} {{
  local-address {settings.local_address};
  router-id {settings.router_id};
  local-as {settings.asn};
  peer-as {peer.asn};
  hold-time {peer.hold_time};
  connect {peer.port};
  passive {"true" if peer.passive else "false"};
  manual-eor true;
  adj-rib-in false;
  adj-rib-out true;
  group-updates true;
  family {{
    ipv4 unicast;
  }}
  capability {{
    asn4 enable;
    route-refresh enable;
    graceful-restart {RESTART_TIME};
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


def first_line(settings: SpeakerSettings) -> str:
    """Return what a child must be told before anything else, and whenever sessions change."""
    return f"%%config {json.dumps(configuration(settings))}"


def ping(number: int) -> str:
    """Return what an alive child answers."""
    return f"%%ping {number}"


def lines(said: Said, settings: SpeakerSettings) -> Iterator[str]:
    """Yield the lines that say it to the child."""
    match said:
        case HoldSessions():
            yield first_line(settings)
        case Announce(prefixes, peer):
            to = f"neighbor {peer} " if peer else ""
            for some in _batches(prefixes):
                yield f"{to}announce attributes next-hop self nlri {some}"
        case Withdraw(prefixes):
            for some in _batches(prefixes):
                yield f"withdraw attributes next-hop self nlri {some}"
        case AnnounceEndOfRib(peer):
            yield f"neighbor {peer} announce eor ipv4 unicast"
        case _:
            assert_never(said)


def _batches(prefixes: tuple[IPv4Network, ...]) -> Iterator[str]:
    for start in range(0, len(prefixes), PREFIXES_AT_ONCE):
        yield " ".join(map(str, prefixes[start : start + PREFIXES_AT_ONCE]))
