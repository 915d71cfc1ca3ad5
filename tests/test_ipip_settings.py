"""Which node a packet goes to, what the control socket accepts, what nft's listing says."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipip import kernel, links, process, tunnel, userspace
from ipip.carrier import Carrier
from ipip.tunnel import NOTHING, Facts, Tunnel

A1 = IPv4Address("172.31.1.11")
Routes = dict[IPv4Network, IPv4Address]


def carrier(routes: Routes) -> Carrier:
    made = Carrier(-1)
    made.follow([(int(net.network_address), net.prefixlen, int(node)) for net, node in routes.items()])
    return made


def node(routes: Routes, destination: str) -> str | None:
    found = carrier(routes).node(int(IPv4Address(destination)))
    return None if found is None else str(IPv4Address(found))


ROUTES = {
    IPv4Network("10.65.0.0/16"): IPv4Address("172.31.2.1"),
    IPv4Network("10.65.2.0/26"): IPv4Address("172.31.2.11"),
    IPv4Network("10.65.2.9/32"): IPv4Address("172.31.2.12"),
    IPv4Network("172.31.2.0/24"): IPv4Address("172.31.2.11"),
}


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        pytest.param("10.65.2.9", "172.31.2.12", id="a host's own route"),
        pytest.param("10.65.2.8", "172.31.2.11", id="a block"),
        pytest.param("10.65.9.9", "172.31.2.1", id="the shortest"),
        pytest.param("10.66.0.1", None, id="none"),
        pytest.param("172.31.2.99", "172.31.2.11", id="a host beside a node"),
        pytest.param("172.31.2.11", None, id="a node itself: its tunnel packets would come back to us for ever"),
    ],
)
def test_the_longest_prefix_decides(destination: str, expected: str | None) -> None:
    assert node(ROUTES, destination) == expected


def test_a_default_route_holds_everything() -> None:
    assert node({IPv4Network("0.0.0.0/0"): A1}, "203.0.113.1") == "172.31.1.11"


numbers = st.integers(0, 2**32 - 1)
networks = st.tuples(numbers, st.integers(0, 32)).map(lambda pair: IPv4Network(pair, strict=False))


@given(st.dictionaries(networks, numbers.map(IPv4Address), max_size=20), st.data())
def test_the_answer_is_that_of_a_search_through_all_prefixes(routes: Routes, data: st.DataObject) -> None:
    inside = [st.integers(int(net.network_address), int(net.broadcast_address)) for net in routes]
    destination = data.draw(st.one_of(numbers, *inside))
    holding = [net for net in routes if IPv4Address(destination) in net]
    best = max(holding, key=lambda net: net.prefixlen, default=None)
    expected = None if best is None or IPv4Address(destination) in routes.values() else int(routes[best])
    assert carrier(routes).node(destination) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10.65.2.0/26", (0x0A410200, 26), id="block"),
        pytest.param("0.0.0.0/0", (0, 0), id="default"),
        pytest.param("10.65.2.5/32", (0x0A410205, 32), id="host"),
    ],
)
def test_prefixes(text: str, expected: tuple[int, int]) -> None:
    assert userspace.prefix(text) == expected


@pytest.mark.parametrize(
    "text",
    ["10.65.2.0", "10.65.2.1/26", "10.65.2.0/33", "10.65.2.0/-1", "10.65.2.0/٣", "/26", "10.1/16", "::/0", None, 7],
)
def test_what_is_no_prefix_is_refused_with_the_value(text: object) -> None:
    with pytest.raises(ValueError, match=r" is no IPv4 (prefix|address)$"):
        userspace.prefix(text)


def test_settings_are_sorted_so_that_equal_tunnels_read_equal() -> None:
    b1, b2 = IPv4Address("172.31.2.11"), IPv4Address("172.31.10.11")
    routes = frozenset({(IPv4Network("10.65.10.0/26"), b2), (IPv4Network("10.65.2.0/26"), b1)})
    assert process.settings(Tunnel(A1, 1480, routes=routes, allowed=frozenset({b2, b1}))) == {
        "local": "172.31.1.11",
        "routes": [["10.65.2.0/26", "172.31.2.11"], ["10.65.10.0/26", "172.31.10.11"]],
        "allowed": ["172.31.2.11", "172.31.10.11"],
    }


@given(st.frozensets(st.tuples(networks, numbers.map(IPv4Address))), st.frozensets(numbers.map(IPv4Address)))
def test_what_the_process_gives_back_is_what_it_was_given(
    routes: links.Gateways, allowed: frozenset[IPv4Address]
) -> None:
    assert process.parsed(process.settings(Tunnel(A1, 1480, routes=routes, allowed=allowed))) == Facts(
        A1, routes, allowed
    )


PAYLOAD = {"payload": {"protocol": "ip", "field": "daddr"}}
ACCEPT = {"rule": {"expr": [{"match": {"op": "==", "left": PAYLOAD, "right": "172.31.1.11"}}, {"accept": None}]}}
DROP = {"rule": {"expr": [{"counter": {"packets": 3, "bytes": 60}}, {"drop": None}]}}
NODES = {"set": {"name": "nodes", "elem": ["172.31.2.11", "172.31.2.12"]}}
HEADER = {"metainfo": {"json_schema_version": 1}}


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        pytest.param(
            [HEADER, NODES, ACCEPT, DROP],
            (A1, frozenset({IPv4Address("172.31.2.11"), IPv4Address("172.31.2.12")})),
            id="whole",
        ),
        pytest.param([HEADER, {"set": {"name": "nodes"}}, ACCEPT, DROP], (A1, frozenset()), id="no node"),
        pytest.param([HEADER, NODES, ACCEPT], (NOTHING, frozenset()), id="somebody removed the drop"),
        pytest.param([HEADER, NODES, DROP], (NOTHING, frozenset()), id="somebody removed the accept"),
        pytest.param(
            [HEADER, {"set": {"elem": [{"prefix": {"addr": "172.31.0.0", "len": 16}}]}}, ACCEPT, DROP],
            (NOTHING, frozenset()),
            id="somebody admits a whole network",
        ),
        pytest.param([], (NOTHING, frozenset()), id="no table"),
    ],
)
def test_the_table_says_who_is_admitted(listing: list[dict[str, object]], expected: object) -> None:
    assert kernel.admitted(listing) == expected


def test_differences_name_what_drifted() -> None:
    want, have = Tunnel(A1, 1480), Tunnel(A1, 1400, up=False)
    assert tunnel.differences(want, have) == {"mtu": (1480, 1400), "up": (True, False)}
