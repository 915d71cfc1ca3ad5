"""How far the engine goes, as FelixConfiguration says it: source address, other programs' routes, hands off."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from builders import TWO_RACKS, link, links
from engine_node import EngineNode

from felix_py import resources
from felix_py.calc.desired import desired
from felix_py.kernel.objects import KernelState, Link, Route, RouteKey, RoutePolicy, Scope
from felix_py.kernel.wire import Mode, Verb
from felix_py.model import FelixConfiguration, Invalid, Key, NodeName
from felix_py.state import ClusterState, Present

POD, STRAY = RouteKey(IPv4Network("10.65.0.5/32")), RouteKey(IPv4Network("10.65.0.9/32"))
TO_POD = Route(device="cali1", scope=Scope.LINK)
ETH0 = Link("eth0", 3, 1500, up=True, running=True, addresses=frozenset({"172.31.1.11/24"}))
CALI1 = Link("cali1", 5, 1500, up=True, running=True)


def foreign(protocol: int) -> Route:
    return Route(device="cali1", scope=Scope.LINK, protocol=protocol)


def configuration(name: str = "default", **spec: object) -> Present:
    document = {"apiVersion": resources.API_VERSION, "kind": "FelixConfiguration", "metadata": {"name": name}}
    return Present(*resources.parse({**document, "spec": spec}, "felix.yaml"))


def wish(*more: Present) -> KernelState:
    cluster = ClusterState().after_all((*TWO_RACKS, *more))
    interfaces = links(link("eth0", "172.31.1.11/24"), link("cali0000000web0"))
    return desired(cluster, {}, NodeName("a1"), interfaces).state


def test_the_source_address_towards_pods_is_set_changed_and_unset() -> None:
    def source(*more: Present) -> IPv4Address | None:
        found = wish(*more).routes[POD].source
        assert found is None or isinstance(found, IPv4Address)
        return found

    assert source() is None
    assert source(configuration(deviceRouteSourceAddress="172.31.1.11")) == IPv4Address("172.31.1.11")
    assert source(
        configuration(deviceRouteSourceAddress="172.31.1.11"),
        configuration("node.a1", deviceRouteSourceAddress="172.31.1.99"),
        configuration("node.a2", deviceRouteSourceAddress="172.31.1.88"),
    ) == IPv4Address("172.31.1.99")


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        pytest.param(RoutePolicy(), set(), id="everybody's routes out of a pod's interface go"),
        pytest.param(RoutePolicy(remove_external=False), {4}, id="only ours and what CNI plugins leave go"),
    ],
)
def test_routes_of_other_programs_out_of_a_pods_interface(policy: RoutePolicy, left: set[int]) -> None:
    node = EngineNode(ETH0, CALI1)
    want = KernelState({POD: TO_POD}, policy=policy)
    node.settle(want)
    for number, protocol in ((9, 3), (10, 4), (11, 80)):
        key = RouteKey(IPv4Network((0x0A410000 + number, 32)))
        assert node.host.foreign(Verb.NEW_ROUTE, Mode.CREATE, key, foreign(protocol)) is None
    node.settle(want)
    assert {route.protocol for key, route in node.host.routes.items() if key != POD} == left
    node.settle(KernelState({POD: TO_POD}))
    assert node.host.routes == {POD: TO_POD}, "the default takes effect at once"


def test_hands_off_leaves_routes_as_they_are_and_says_so() -> None:
    node = EngineNode(ETH0, CALI1)
    node.settle(KernelState({POD: TO_POD}))
    off = KernelState({STRAY: TO_POD}, policy=RoutePolicy(sync=False))
    node.settle(off)
    assert node.host.routes == {POD: TO_POD}
    assert node.kernel.routes.standing(STRAY, node.now).reason == (
        "FelixConfiguration says routeSyncDisabled; set it to false to have routes kept"
    )
    node.settle(KernelState({STRAY: TO_POD}))
    assert node.host.routes == {STRAY: TO_POD}


def test_the_nodes_own_words_go_before_the_clusters_and_those_before_the_defaults() -> None:
    said = (configuration(routeSyncDisabled=True), configuration("node.a1", routeSyncDisabled=False))
    assert wish().policy == RoutePolicy(remove_external=True, sync=True)
    assert wish(said[0], configuration("node.a2", removeExternalRoutes=False)).policy == RoutePolicy(sync=False)
    assert wish(*said).policy == RoutePolicy()


def test_bad_values_are_refused_by_name() -> None:
    with pytest.raises(Invalid) as refused:
        configuration("a1", routeSyncDisabled="yes", deviceRouteSourceAddress="::1", wireguardMTU=1400)
    supported = (
        "deviceRouteSourceAddress, deviceRouteSourceAddressIPv6, externalNodesList, ipipMTU, mtuIfacePattern, "
        "programClusterRoutes, removeExternalRoutes, routeSyncDisabled, vxlanMTU, vxlanMTUV6, vxlanPort, vxlanVNI"
    )
    assert [str(fault).removeprefix("felix.yaml: FelixConfiguration a1: ") for fault in refused.value.faults] == [
        f"spec.wireguardMTU: is not supported; remove it (supported here: {supported})",
        "metadata.name: is 'a1'; give default, or node. and the name of a node",
        "spec.deviceRouteSourceAddress: is '::1'; give an IPv4 address, as 172.31.1.11",
        "spec.routeSyncDisabled: is 'yes'; give true or false",
    ]


def test_it_is_a_resource_like_others() -> None:
    key, value = configuration().key, configuration().value
    assert (key, value) == (Key("FelixConfiguration", "default"), FelixConfiguration())
