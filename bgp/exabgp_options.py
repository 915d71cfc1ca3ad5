"""What a session asks of ExaBGP that it cannot do: it runs in the child, and replaces where ExaBGP decides.

The neighbour's description, which ExaBGP only carries, tells it: `keepalive 5` (see `exabgp_timers`), `any-source`.
5.0.15 takes a source address that the kernel chose only on connections that it opened itself; the TTL that it wants of
packets (RFC 5082) it checks only there, or for all peers at once; and with a peer that names no families it exchanges
no routes at all.
"""

from typing import Any

from exabgp.bgp.message.open.capability.capability import Capability
from exabgp.bgp.message.open.capability.negotiated import Negotiated
from exabgp.bgp.neighbor import Neighbor
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor import listener
from exabgp.reactor.network.error import NetworkError
from exabgp.reactor.network.tcp import set_minimum_ttl, set_sending_ttl

from bgp.exabgp_codec import ANY_SOURCE, HIGHEST_TTL, KEEPALIVE

_stock_set_accepted_ttl = listener.set_accepted_ttl
_stock_set_listener_options = listener.set_listener_options
_stock_infer, _stock_ip_self = Neighbor.infer, Neighbor.ip_self
_stock_negotiate = Negotiated._negotiate  # noqa: SLF001 - there is no other place where families are agreed on

IMPLIED = AFI.ipv4, SAFI.unicast
"""What a session carries with a peer that does not say (RFC 4760 section 8)."""


def words(neighbor: Any) -> list[str]:
    """Return what we wrote into a neighbour's description."""
    return str(neighbor["description"]).split()


def keepalive(neighbor: Any) -> int | None:
    """Return the seconds between KEEPALIVEs that its settings ask for; None where they do not."""
    said = words(neighbor)
    return int(said[said.index(KEEPALIVE) + 1]) if KEEPALIVE in said else None


def _set_accepted_ttl(connection: Any, neighbor: Any) -> None:
    """Have the kernel drop what arrives with too low a TTL on a connection that the peer opened.

    Stock can do it on the listening socket only, which all peers share.
    """
    _stock_set_accepted_ttl(connection, neighbor)
    if connection.io is None:
        return
    try:
        set_minimum_ttl(connection.io, connection.afi, connection.peer, neighbor["incoming-ttl"])
    except NetworkError as error:
        log.error(lambda error=error: f"the TTL of {connection.name()} cannot be checked: {error}", "network")
        connection.close()


def _set_listener_options(sock: Any, ipv6: bool) -> None:  # noqa: FBT001 - ExaBGP's signature
    """Have the kernel answer with the highest TTL: it answers a peer that checks it before we see the connection."""
    _stock_set_listener_options(sock, ipv6)
    set_sending_ttl(sock, AFI.ipv6 if ipv6 else AFI.ipv4, "anybody", HIGHEST_TTL)


def _infer(neighbor: Any) -> None:
    """Let the kernel choose the source address where the settings say so."""
    _stock_infer(neighbor)
    if ANY_SOURCE in words(neighbor):
        neighbor.auto_discovery = True


def _ip_self(neighbor: Any, afi: Any) -> Any:
    """Return the next hop that stands for ourselves: our own address, whichever the kernel chose for the session."""
    configured = neighbor["md5-ip"]
    return configured if configured is not None and configured.afi == afi else _stock_ip_self(neighbor, afi)


def _negotiate(agreed: Any) -> None:
    """Agree on IPv4 with a peer whose OPEN is silent about families, where we offer it."""
    _stock_negotiate(agreed)
    offered = agreed.sent_open.capabilities.get(Capability.CODE.MULTIPROTOCOL, ())
    if IMPLIED in offered and not agreed.received_open.capabilities.announced(Capability.CODE.MULTIPROTOCOL):
        agreed.families = [IMPLIED]


def install() -> None:
    """Have ExaBGP ask us where it decides itself."""
    listener.set_accepted_ttl, listener.set_listener_options = _set_accepted_ttl, _set_listener_options
    Negotiated._negotiate = _negotiate  # noqa: SLF001 - same as above
    Neighbor.infer, Neighbor.ip_self = _infer, _ip_self
