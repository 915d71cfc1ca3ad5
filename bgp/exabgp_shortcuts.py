"""Shorter ways for ExaBGP to tell a route to many peers: they run in the child, and say just the same.

Of a route reflector's processor time, 5.0.15 spends half on a deep copy of the route for each peer, and a third on a
regular expression for each peer that a command names and each that there is.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from exabgp.bgp.message.update.attribute import Attribute, NextHop
from exabgp.bgp.neighbor import Neighbor
from exabgp.reactor.api.command import announce
from exabgp.reactor.api.command.limit import match_neighbors as stock_match_neighbors

EVERYBODY = "neighbor *"


def remove_self(neighbor: Any, change: Any) -> Any:
    """Return a route for one peer: of its own is only what ExaBGP may still change."""
    own = copy(change)
    own.nlri = copy(change.nlri)
    if not change.nlri.nexthop.SELF:
        return own
    ourselves = neighbor.ip_self(own.nlri.afi)
    own.nlri.nexthop = ourselves
    if Attribute.CODE.NEXT_HOP in change.attributes:
        own.attributes = copy(change.attributes)
        own.attributes[Attribute.CODE.NEXT_HOP] = NextHop(str(ourselves), ourselves.pack())
    return own


def match_neighbors(peers: Iterable[str], descriptions: Sequence[Sequence[str]]) -> Iterable[str]:
    """Return the peers that a command names; a name of ExaBGP's begins with `neighbor ADDRESS`."""
    if any(len(each) != 1 or each[0].strip() == EVERYBODY for each in descriptions):
        matched: Iterable[str] = stock_match_neighbors(peers, descriptions)
        return matched
    if not descriptions:
        return peers
    named = {each[0].strip() for each in descriptions}
    return [peer for peer in peers if " ".join(peer.split(" ", 2)[:2]) in named]


def install() -> None:
    """Have ExaBGP take them."""
    Neighbor.remove_self = remove_self
    announce.match_neighbors = match_neighbors
