from ipaddress import IPv4Address, IPv6Address

from bgp_builders import A2, B1, ME, NODE_AS, TOR, TOR_AS, peer

from bgp.peering import MeshNode, sessions, waits

NODES = [MeshNode("a1", ME, NODE_AS), MeshNode("a2", A2, NODE_AS), MeshNode("b1", B1, 64513)]


def test_a_full_mesh_has_everybody_but_ourselves() -> None:
    found = sessions(NODES[0], NODES, [])
    assert [(each.name, each.asn, each.kind) for each in found] == [("a2", NODE_AS, "mesh"), ("b1", 64513, "mesh")]


def test_exactly_one_of_two_nodes_dials() -> None:
    for one in NODES:
        for other in NODES:
            if one != other:
                assert waits(one.address, other.address) != waits(other.address, one.address)
    assert [each.passive for each in sessions(NODES[1], NODES, [])] == [False, True]


def test_an_explicit_peer_replaces_the_mesh() -> None:
    asked = peer(B1, 64999, "b1", "node", hold_time=9)
    assert sessions(NODES[0], NODES, [asked])[1] == asked


def test_sessions_are_sorted_by_address_as_a_number() -> None:
    asked = [peer(IPv4Address("172.31.10.1")), peer(TOR, TOR_AS), peer(IPv4Address("172.31.9.1"))]
    found = sessions(NODES[0], [], [*asked, peer(IPv6Address("fd00::1"))])  # type: ignore[arg-type]
    assert [str(each.address) for each in found] == ["172.31.1.1", "172.31.9.1", "172.31.10.1", "fd00::1"]


def test_a_peer_with_our_own_address_is_passed_over() -> None:
    assert sessions(NODES[0], [], [peer(ME)]) == ()


def test_the_mesh_dials_the_port_that_nodes_listen_on() -> None:
    assert {each.port for each in sessions(NODES[0], NODES, [], port=1790)} == {1790}
