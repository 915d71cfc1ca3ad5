"""What is shorter than in ExaBGP says the same as ExaBGP."""

from typing import Any

import pytest
from exabgp.bgp.message import Action
from exabgp.bgp.message.update.attribute import Attributes, LocalPreference, NextHop
from exabgp.bgp.message.update.nlri import CIDR, INET
from exabgp.bgp.neighbor import Neighbor
from exabgp.protocol.family import AFI, SAFI
from exabgp.protocol.ip import IP, IPSelf
from exabgp.reactor.api.command import limit
from exabgp.rib.change import Change
from hypothesis import given
from hypothesis import strategies as st

from bgp import exabgp_shortcuts

STOCK_REMOVE_SELF = Neighbor.remove_self

ADDRESSES = ("172.31.1.1", "172.31.1.11", "172.31.1.111", "fd31::1", "fd31::11")
NAMES = [
    f"neighbor {address} local-ip 172.31.1.2 local-as 64512 peer-as 64512 router-id 172.31.1.2 family-allowed in-open"
    for address in ADDRESSES
]

descriptions = st.lists(
    st.sampled_from([*([f"neighbor {address}"] for address in (*ADDRESSES, "*")), ["neighbor 172.31.1.1", "peer-as 1"]])
)


@given(descriptions)
def test_a_command_reaches_whom_it_names(named: list[list[str]]) -> None:
    assert list(exabgp_shortcuts.match_neighbors(NAMES, named)) == list(limit.match_neighbors(NAMES, named))


def route(next_hop: Any) -> Any:
    nlri = INET(AFI.ipv4, SAFI.unicast)
    nlri.cidr, nlri.nexthop, nlri.action = CIDR(bytes((10, 65, 0, 0)), 26), next_hop, Action.ANNOUNCE
    attributes = Attributes()
    attributes.add(LocalPreference(100))
    attributes.add(NextHop("172.31.9.9"))
    return Change(nlri, attributes)


@pytest.mark.parametrize("next_hop", [IP.create("172.31.9.9"), IPSelf(AFI.ipv4)], ids=["as it is", "ourselves"])
def test_a_peer_is_told_the_same_and_has_a_route_of_its_own(next_hop: Any) -> None:
    neighbor = Neighbor()
    neighbor["local-address"] = IP.create("172.31.1.2")
    stock, ours, told = route(next_hop), route(next_hop), exabgp_shortcuts.remove_self
    expected = STOCK_REMOVE_SELF(neighbor, stock)
    given_to_one = told(neighbor, ours)
    assert given_to_one.extensive() == expected.extensive()
    assert given_to_one.nlri.nexthop == expected.nlri.nexthop
    assert given_to_one.index() == expected.index()
    # ExaBGP turns what it has into a withdrawal in place: that must stay with the one peer.
    given_to_one.nlri.action = Action.WITHDRAW
    assert ours.nlri.action == Action.ANNOUNCE
    assert ours.extensive() == stock.extensive()
