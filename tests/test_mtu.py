"""How large packets may be: by uplinks, pools in use and settings, each with its reason."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from builders import TWO_RACKS, link, links, node, pool, vxlan_pool

from felix_py.calc.desired import Desired, desired
from felix_py.kernel.objects import Link, NextHop, PodLink, Route, RouteKey
from felix_py.model import FelixConfiguration, Invalid, IpipMode, Key, NodeName, VxlanMode, WorkloadEndpoint
from felix_py.resources import parse
from felix_py.state import ClusterState, Event, Present

A1 = NodeName("a1")
ETH0 = link("eth0", "172.31.1.11/24")
CALI = link("cali0000000web0")
DEFAULT = RouteKey(IPv4Network("0.0.0.0/0"))
BY_ETH0 = {DEFAULT: Route(via=IPv4Address("172.31.1.1"), device="eth0", protocol=3)}


def wish(
    *events: Event, on: Mapping[str, Link] | None = None, underlay: Mapping[RouteKey, Route] | None = None
) -> Desired:
    cluster = ClusterState().after_all((*TWO_RACKS, *events))
    found = links(link("lo", mtu=65536), ETH0, CALI) if on is None else on
    return desired(cluster, {}, A1, found, underlay=BY_ETH0 if underlay is None else underlay)


def felix(**fields: object) -> Present:
    return Present(Key("FelixConfiguration", "default"), FelixConfiguration(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "pods"), [(IpipMode.NEVER, 1500), (IpipMode.CROSS_SUBNET, 1480), (IpipMode.ALWAYS, 1480)]
)
def test_the_worst_encapsulation_in_use_counts(mode: IpipMode, pods: int) -> None:
    assert wish(pool(mode=mode)).pod_mtu.value == pods


def test_one_pool_of_several_that_encapsulates_is_enough() -> None:
    assert wish(pool(mode=IpipMode.NEVER), pool("10.66.0.0/16", IpipMode.ALWAYS, name="second")).pod_mtu.value == 1480


@pytest.mark.parametrize(
    ("pools", "fields", "pods"),
    [
        pytest.param([vxlan_pool()], {}, 1450, id="IPv4"),
        pytest.param([vxlan_pool(), vxlan_pool("fd65::/48", name="six")], {}, 1430, id="IPv6 adds more"),
        pytest.param([vxlan_pool(mode=VxlanMode.NEVER)], {}, 1500, id="Never"),
        pytest.param([pool(), vxlan_pool("10.66.0.0/16", name="second")], {}, 1450, id="both kinds of tunnels"),
        pytest.param([vxlan_pool()], {"vxlan_mtu": 1390}, 1390, id="as somebody says"),
        pytest.param([vxlan_pool()], {"vxlan_mtu6": 1290, "ipip_mtu": 1290}, 1450, id="others' settings"),
    ],
)
def test_vxlan_counts_with_its_own_overhead(pools: list[Present], fields: Mapping[str, object], pods: int) -> None:
    assert wish(*pools, felix(**fields)).pod_mtu.value == pods


def test_the_reason_names_interface_and_overhead() -> None:
    assert wish().pod_mtu.why == "eth0, of the interfaces that lead to other nodes, takes 1500, less 20 for ipip"


TWO = links(
    link("lo", mtu=65536), link("eth0", "172.31.1.11/24", mtu=9000), link("wan0", "192.0.2.7/24", mtu=1400), CALI
)


@pytest.mark.parametrize(
    ("on", "underlay", "host"),
    [
        pytest.param(TWO, BY_ETH0, 9000, id="an interface that leads to no node does not count"),
        pytest.param(
            TWO,
            {DEFAULT: Route(via=IPv4Address("192.0.2.1"), device="wan0", protocol=3)},
            1400,
            id="the other rack is behind another interface",
        ),
        pytest.param(
            TWO,
            {
                DEFAULT: Route(
                    hops=(NextHop(IPv4Address("172.31.1.1"), "eth0"), NextHop(IPv4Address("192.0.2.1"), "wan0")),
                    protocol=3,
                )
            },
            1400,
            id="flows are spread over both",
        ),
        pytest.param(
            links(link("lo", "172.31.1.11/32", mtu=65536), link("wan0", mtu=1450)),
            {DEFAULT: Route(via=IPv4Address("192.0.2.1"), device="wan0", protocol=3)},
            1450,
            id="the node's address is on the loopback",
        ),
        pytest.param(links(link("lo", mtu=65536)), {}, 1500, id="nothing is there yet"),
    ],
)
def test_uplinks_are_what_leads_to_other_nodes(
    on: Mapping[str, Link], underlay: Mapping[RouteKey, Route], host: int
) -> None:
    events = [node("a1", "172.31.1.11/32")] if "172.31.1.11/32" in on["lo"].addresses else []
    assert wish(pool(mode=IpipMode.NEVER), *events, on=on, underlay=underlay).pod_mtu.value == host


def test_a_node_alone_goes_by_the_interface_with_its_address() -> None:
    alone = ClusterState().after_all((node("a1", "172.31.1.11/24"), pool()))
    found = desired(alone, {}, A1, links(link("eth0", "172.31.1.11/24", mtu=1400), link("eth1", mtu=1300)))
    assert found.pod_mtu.value == 1380


@pytest.mark.parametrize(
    ("fields", "pods", "why"),
    [
        ({"ipip_mtu": 1300}, 1300, "FelixConfiguration says ipipMTU 1300"),
        ({"ipip_mtu": 0}, 8980, "eth0, of the interfaces that lead to other nodes, takes 9000, less 20 for ipip"),
        ({"ipip_mtu": 9000}, 9000, None),
        ({"mtu_pattern": "^wan"}, 1380, None),
        ({"mtu_pattern": "0$"}, 1380, None),
        ({"mtu_pattern": "^nothing"}, 1480, None),
    ],
)
def test_settings_go_before_what_is_detected(fields: Mapping[str, object], pods: int, why: str | None) -> None:
    found = wish(felix(**fields), on=TWO)
    assert found.pod_mtu.value == found.state.tunnels["tunl0"].mtu == pods
    assert why in (None, found.pod_mtu.why)


def with_namespace(*addresses: str) -> Present:
    networks = tuple(map(ip_network, addresses))
    name = "default/web-0"
    return Present(
        Key("WorkloadEndpoint", name),
        WorkloadEndpoint(name, A1, CALI.name, networks, netns="/run/netns/web", inside="eth0"),
    )


@pytest.mark.parametrize(
    ("addresses", "uplink", "pods"),
    [
        (["10.65.0.5/32"], 1500, 1480),
        (["10.65.0.5/32"], 1000, 980),
        pytest.param(["10.65.0.5/32", "fd65::5/128"], 1000, 1280, id="IPv6 needs 1280"),
    ],
)
def test_pods_that_are_there_follow(addresses: list[str], uplink: int, pods: int) -> None:
    found = wish(with_namespace(*addresses), on=links(link("eth0", "172.31.1.11/24", mtu=uplink), CALI))
    assert found.state.pod_links == {CALI.name: PodLink("/run/netns/web", "eth0", pods)}


def test_a_pod_whose_namespace_nobody_named_is_left_alone() -> None:
    assert wish().state.pod_links == {}


def test_a_pod_whose_interface_is_gone_is_not_wanted() -> None:
    assert wish(with_namespace("10.65.0.5/32"), on=links(ETH0)).state.pod_links == {}


def test_the_settings_of_one_node_go_before_those_of_all() -> None:
    mine = Present(Key("FelixConfiguration", "node.a1"), FelixConfiguration("node.a1", ipip_mtu=1310))
    assert wish(felix(ipip_mtu=1300), mine).pod_mtu.value == 1310


def document(**spec: object) -> dict[str, object]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": spec,
    }


def test_the_fields_are_read() -> None:
    _, found = parse(document(ipipMTU=1400, mtuIfacePattern="^eth[0-9]+$"), "here")
    assert found == FelixConfiguration(ipip_mtu=1400, mtu_pattern="^eth[0-9]+$")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"ipipMTU": 500}, "spec.ipipMTU: is 500; give bytes from 576 to 65515, or 0 to have it follow the uplinks"),
        ({"ipipMTU": 70000}, "spec.ipipMTU: is 70000"),
        ({"mtuIfacePattern": "eth["}, "spec.mtuIfacePattern: is 'eth['; give a regular expression"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(spec: Mapping[str, object], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(document(**spec), "here")
    assert words in str(refused.value)
