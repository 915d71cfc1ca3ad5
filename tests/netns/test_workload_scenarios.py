"""What Calico's own tests ask of workload routes and interfaces, one test each, on a real kernel; numbers are theirs.

Where Calico repairs at its next resync, after up to 90 s, an event has to do it here within a second.
"""

import threading
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from builders import pool
from conntrack_lab import TRACKED, Connection, inject, rule, tracked
from route_node import BLACKHOLE, CLUSTER, DEFAULT, POD, REMOTE, Lab, RouteNode, ToldSpeaker, changes, lab, one_pod
from spaces import SECONDS, Pod, Space

from felix_py.kernel.conntrack_table import Forgotten, KernelTable
from felix_py.model import FelixConfiguration, IPAddress, IpipMode, Key, WorkloadEndpoint
from felix_py.state import Present

pytestmark = pytest.mark.netns


@pytest.fixture
def made() -> Iterator[Lab]:
    with lab() as each:
        yield each


def test_01_a_local_workload_has_exactly_one_route_and_no_other_is_touched(made: Lab) -> None:
    space = made.uplinked()
    space.ip("route add 192.0.2.0/24 via 172.31.1.1 proto static", "route add 198.51.100.0/24 via 172.31.1.1")
    pod = made.pod(space, "cali1", "10.65.0.2")
    before, monitor = space.routes(), made.monitor(space)
    without_block = (each for each in CLUSTER if not (isinstance(each, Present) and each.key.kind == "BlockAffinity"))
    made.node(*without_block, pod.present("default/web"), space=space)
    assert space.routes() == before | {POD}
    assert changes(monitor) == [("add", "10.65.0.2/32")]


def test_02_an_agent_started_again_with_nothing_changed_writes_nothing(made: Lab) -> None:
    running, _ = one_pod(made)
    running.stop()
    before, monitor = running.space.routes(), made.monitor(running)
    running.speaker = ToldSpeaker(done=False)
    running.start()
    assert running.space.routes() == before, "BGP has said nothing yet"
    running.speaker.done = True
    running.learn({"10.65.1.0/26": "172.31.1.12"})
    running.settle()
    assert monitor.events() == []
    assert running.loud() == []


@pytest.mark.parametrize("first", ["endpoint", "interface"])
def test_04_with_an_endpoint_go_its_route_and_its_connections_and_no_others(made: Lab, first: str) -> None:
    running, pod = one_pod(made)
    space = running.space
    space.do(rule, TRACKED)
    mine = {Connection("10.65.0.2", "192.0.2.9"), Connection("192.0.2.9", "10.65.0.2")}
    service = {Connection("192.0.2.9", "10.96.0.10", "10.65.0.2", port=7)}
    others = {Connection("10.65.0.3", "192.0.2.9"), Connection("192.0.2.9", "10.96.0.10", "10.65.0.3")}
    space.do(inject, mine | service | others)
    if first == "interface":
        space.ip("link del cali1")
    running.forget("WorkloadEndpoint", "default/web")
    assert running.until(lambda: tracked(space.thread) == others), tracked(space.thread)
    assert space.routes() == {BLACKHOLE, DEFAULT, REMOTE}
    running.settle()
    assert tracked(space.thread) == others
    assert pod.interface in space.run("ip", "link") or first == "interface"


class SlowTable:
    """The kernel's table of connections, behind a gate."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate
        self._table = KernelTable()

    def forget(self, addresses: Iterable[IPAddress], *, kernel_chooses: bool = True) -> Forgotten:
        assert self._gate.wait(SECONDS)
        return self._table.forget(addresses, kernel_chooses=kernel_chooses)

    def close(self) -> None:
        self._table.close()


def test_05_a_slow_purge_holds_up_the_address_that_moves_and_nobody_else(made: Lab) -> None:
    gate = threading.Event()
    made.callback(gate.set)
    running, _ = one_pod(made, open_table=lambda: SlowTable(gate))
    space, monitor = running.space, made.monitor(running)
    space.do(rule, TRACKED)
    mine = Connection("10.65.0.2", "192.0.2.9")
    space.do(inject, [mine])
    second, third = made.pod(space, "cali2", "10.65.0.2"), made.pod(space, "cali3", "10.65.0.3")
    running.tell(second.present("default/web"))
    running.tell(third.present("default/other"))
    other = "10.65.0.3 dev cali3 proto 80 scope link"
    assert running.until(lambda: other in space.routes())
    running.settle()
    assert space.routes() == {other, BLACKHOLE, DEFAULT, REMOTE}, "the old route is gone, the new one waits"
    assert tracked(space.thread) == {mine}
    gate.set()
    assert running.until(lambda: "10.65.0.2 dev cali2 proto 80 scope link" in space.routes())
    assert tracked(space.thread) == set(), "the new owner inherits nothing"
    assert [(seen.verb, seen.route) for seen in monitor.of("10.65.0.2/32")] == [
        ("delete", "dev cali1 scope link"),
        ("add", "dev cali2 scope link"),
    ]


def two_claimants(made: Lab) -> tuple[RouteNode, Pod, Pod]:
    space = made.uplinked()
    elder, younger = made.pod(space, "cali2", "10.65.0.2"), made.pod(space, "cali1", "10.65.0.2")
    assert elder.index < younger.index
    # The name that sorts first belongs to the elder one: only the index may decide.
    running = made.node(*CLUSTER, elder.present("default/a"), younger.present("default/b"), space=space)
    assert POD in space.routes()
    return running, elder, younger


def test_06_two_endpoints_with_one_address_the_later_interface_owns_the_route(made: Lab) -> None:
    running, _, _ = two_claimants(made)
    assert running.space.routes() == {POD, BLACKHOLE, DEFAULT}


@pytest.mark.parametrize("how", ["endpoint removed", "interface down", "interface deleted"])
def test_06_when_the_owner_of_an_address_goes_the_other_one_takes_over(made: Lab, how: str) -> None:
    running, _, _ = two_claimants(made)
    if how == "endpoint removed":
        running.forget("WorkloadEndpoint", "default/b")
    else:
        running.space.ip("link set cali1 down" if how == "interface down" else "link del cali1")
    heir = "10.65.0.2 dev cali2 proto 80 scope link"
    assert running.until(lambda: running.space.routes() == {heir, BLACKHOLE, DEFAULT}), running.space.routes()
    if how == "interface down":
        running.space.ip("link set cali1 up")
        assert running.until(lambda: POD in running.space.routes(), SECONDS)  # once it has a carrier again


@pytest.mark.parametrize("how", ["endpoint removed", "interface down", "interface deleted"])
def test_06_when_the_loser_of_an_address_goes_nothing_changes(made: Lab, how: str) -> None:
    running, _, _ = two_claimants(made)
    monitor = made.monitor(running)
    if how == "endpoint removed":
        running.forget("WorkloadEndpoint", "default/a")
    else:
        running.space.ip("link set cali2 down" if how == "interface down" else "link del cali2")
    running.settle()
    running.pass_time(5)
    running.settle()
    assert monitor.events() == []


def test_07_an_address_here_and_elsewhere_is_here_until_the_local_endpoint_goes(made: Lab) -> None:
    running, _ = one_pod(made)
    space, monitor = running.space, made.monitor(running)
    running.tell(pool(mode=IpipMode.ALWAYS))
    running.learn({"10.65.0.2/32": "172.31.1.12"})
    running.settle()
    assert POD in space.routes()
    assert monitor.of("10.65.0.2/32") == []
    running.forget("WorkloadEndpoint", "default/web")
    elsewhere = "10.65.0.2 via 172.31.1.12 dev tunl0 proto 80 onlink"
    assert running.until(lambda: elsewhere in space.routes())
    assert POD not in space.routes()
    running.tell(endpoint("cali1"))
    assert running.until(lambda: POD in space.routes())
    assert elsewhere not in space.routes()


def endpoint(interface: str, *addresses: str) -> Present:
    networks = tuple(map(IPv4Network, addresses or ("10.65.0.2/32",)))
    return Present(
        Key("WorkloadEndpoint", "default/web"), WorkloadEndpoint("default/web", CLUSTER_NODE, interface, networks)
    )


CLUSTER_NODE = CLUSTER[0].value.name  # type: ignore[union-attr]


def test_10_an_interface_made_again_under_its_name_gets_its_route_on_the_new_index(made: Lab) -> None:
    running, pod = one_pod(made)
    before = pod.index
    running.space.ip("link del cali1")
    pod.plug()
    assert pod.index != before
    assert running.until(lambda: POD in running.space.routes())
    assert running.until(lambda: running.space.parameter("ipv4/conf/cali1/proxy_arp") == "1")
    assert running.until(lambda: running.space.pings("10.65.0.2"), SECONDS)
    assert running.loud() == []


def raced(made: Lab) -> tuple[RouteNode, Pod]:
    """Return a node, and a pod that a CNI plugin has routed before anybody told of it."""
    running, _ = one_pod(made)
    pod = made.pod(running, "cali9", "10.65.0.9")
    running.space.ip("route add 10.65.0.9 dev cali9 scope link")
    running.settle()
    return running, pod


def test_11_an_unknown_route_on_a_new_interface_stays_for_ten_seconds_and_no_longer(made: Lab) -> None:
    running, _ = raced(made)
    running.pass_time(9)
    running.settle()
    assert "10.65.0.9 dev cali9 scope link" in running.space.routes()
    running.pass_time(1)
    assert running.until(lambda: "10.65.0.9 dev cali9 scope link" not in running.space.routes())
    assert running.loud() == []


def test_11_an_unknown_route_whose_endpoint_arrives_is_taken_over_without_a_gap(made: Lab) -> None:
    running, pod = raced(made)
    monitor = made.monitor(running)
    running.tell(pod.present("default/new"))
    assert running.until(lambda: "10.65.0.9 dev cali9 proto 80 scope link" in running.space.routes())
    assert [(seen.verb, seen.replaced) for seen in monitor.of("10.65.0.9/32")] == [("add", True)]


@pytest.mark.parametrize("protocol", ["boot", "static", "bird", "99"])
def test_12_a_foreign_route_out_of_a_pods_interface_is_removed(made: Lab, protocol: str) -> None:
    running, _ = one_pod(made)
    before = running.space.routes()
    running.space.ip(f"route add 203.0.113.0/24 dev cali1 proto {protocol}")
    assert running.until(lambda: running.space.routes() == before), "by event"
    running.stop()
    running.space.ip(f"route add 203.0.113.0/24 dev cali1 proto {protocol}")
    running.start()
    assert running.space.routes() == before, "by resync"


def felix(**said: Any) -> Present:
    """Return the settings of how routes are programmed."""
    return Present(Key("FelixConfiguration", "default"), FelixConfiguration(**said))


def test_12_a_foreign_route_out_of_a_pods_interface_stays_where_the_settings_say_so(made: Lab) -> None:
    running, _ = one_pod(made)
    running.tell(felix(remove_external_routes=False))
    running.settle()
    before, theirs = running.space.routes(), "203.0.113.0/24 dev cali1 proto static scope link"
    running.space.ip(f"route add {theirs}", "route add 203.0.114.0/24 dev cali1 proto boot")
    assert running.until(lambda: running.space.routes() == before | {theirs}), "what CNI plugins leave still goes"
    running.stop()
    running.start()
    assert running.space.routes() == before | {theirs}
    running.tell(felix(remove_external_routes=True))
    assert running.until(lambda: running.space.routes() == before)


@pytest.mark.parametrize("prefix", ["10.65.0.2", "10.65.0.0/26", "10.65.1.0/26"], ids=["pod", "block", "remote"])
def test_13_a_route_of_ours_deleted_by_hand_is_back_within_a_second(made: Lab, prefix: str) -> None:
    running, _ = one_pod(made)
    before = running.space.routes()
    running.space.ip(f"route del {prefix}")
    assert running.until(lambda: running.space.routes() == before)
    assert running.until(lambda: running.agent.repairs == {"route deleted": 1})


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("route replace 10.65.1.0/26 via 172.31.1.1 proto 80", id="another gateway"),
        pytest.param("route replace 10.65.1.0/26 via 172.31.1.12 dev eth0 onlink", id="another protocol"),
        pytest.param("route replace 10.65.1.0/26 via 172.31.1.1 proto bird", id="both"),
        pytest.param("route replace blackhole 10.65.1.0/26", id="another type"),
        pytest.param("route replace 10.65.0.2 via 172.31.1.12", id="the pod's, to another machine"),
        pytest.param("route replace 10.65.0.2 dev cali1 mtu 1300 proto 80", id="the pod's, with an MTU"),
    ],
)
def test_14_a_route_of_ours_replaced_by_another_program_is_restored(made: Lab, command: str) -> None:
    running, _ = one_pod(made)
    before, monitor = running.space.routes(), made.monitor(running)
    running.space.ip(command)
    assert running.until(lambda: running.space.routes() == before), running.space.routes()
    assert [(seen.verb, seen.replaced) for seen in monitor.events()] == [("add", True)] * 2, "replaced in place, twice"


def test_20_the_source_address_of_a_route_is_set_changed_in_place_and_cleared(made: Lab) -> None:
    running, _ = one_pod(made)
    space, monitor = running.space, made.monitor(running)
    space.ip("addr add 172.31.1.21/24 dev eth0")
    for source in ("172.31.1.11", "172.31.1.21", None):
        running.tell(felix(device_route_source=IPv4Address(source) if source else None))
        shown = f"{POD} src {source}" if source else POD
        assert running.until(lambda shown=shown: space.routes() == {shown, BLACKHOLE, DEFAULT, REMOTE}), space.routes()
    assert [(seen.verb, seen.replaced) for seen in monitor.of("10.65.0.2/32")] == [("add", True)] * 3


def test_21_ours_is_what_has_our_protocol_or_leaves_by_a_pods_interface(made: Lab) -> None:
    running, _ = one_pod(made)
    before = running.space.routes()
    foreign = [f"192.0.2.{last}/32 via 172.31.1.1 dev eth0 proto {last}" for last in (4, 12, 79, 81, 186)]
    running.space.ip(*(f"route add {each}" for each in foreign), "route add 198.51.100.0/24 via 172.31.1.1 proto 80")
    running.space.ip("route add 203.0.113.0/24 dev cali1 proto 81")
    assert running.until(lambda: len(running.space.routes()) == len(before) + len(foreign)), running.space.routes()
    left = {line.split()[0] for line in running.space.routes() - before}
    assert left == {f"192.0.2.{last}" for last in (4, 12, 79, 81, 186)}


def test_21_of_two_routes_that_differ_by_metric_the_stale_one_is_removed(made: Lab) -> None:
    running, _ = one_pod(made)
    before = running.space.routes()
    stale = "route add 10.65.1.0/26 via 172.31.1.12 dev eth0 onlink proto 80 metric 1024"
    foreign = "10.65.1.0/26 via 172.31.1.1 dev eth0 proto static metric 512"
    running.space.ip(stale, f"route add {foreign}")
    assert running.until(lambda: running.space.routes() == before | {foreign}), "by event"
    running.stop()
    running.space.ip(stale)
    running.start()
    assert running.space.routes() == before | {foreign}, "by resync"


PARAMETERS = {
    "ipv4/conf/cali1/proxy_arp": ("1", "0"),
    "ipv4/conf/cali1/forwarding": ("1", "0"),
    "ipv4/conf/cali1/route_localnet": ("1", "0"),
    "ipv4/neigh/cali1/proxy_delay": ("0", "80"),
    "ipv4/conf/cali1/rp_filter": ("1", "0"),
    "ipv6/conf/cali1/accept_ra": ("0", "1"),
}
"""What has to hold, and what an administrator sets instead."""


def parameters(space: Space) -> dict[str, str]:
    return {path: space.parameter(path) for path in PARAMETERS}


WISHED = {path: wanted for path, (wanted, _) in PARAMETERS.items()}


def test_22_parameters_that_are_reset_are_set_again_at_the_interfaces_next_event(made: Lab) -> None:
    running, _ = one_pod(made)
    assert parameters(running.space) == WISHED
    for path, (_, other) in PARAMETERS.items():
        running.space.parameter(path, other)
    running.space.ip("link set cali1 down", "link set cali1 up")
    assert running.until(lambda: parameters(running.space) == WISHED), parameters(running.space)


@pytest.mark.parametrize("path", ["ipv4/conf/cali1/proxy_arp", "ipv4/conf/cali1/forwarding", "ipv4/ip_forward"])
def test_22_parameters_of_which_the_kernel_tells_are_set_again_at_once(made: Lab, path: str) -> None:
    running, _ = one_pod(made)
    running.space.parameter(path, "0")
    assert running.until(lambda: running.space.parameter(path) == "1")


def test_23_without_a_default_route_a_pod_still_finds_its_gateway(made: Lab) -> None:
    running, pod = one_pod(made)
    second = made.pod(running, "cali2", "10.65.0.3")
    running.tell(second.present("default/other"))
    running.space.ip("route del default")
    gateway = "169.254.1.1 dev lo proto 80 scope link"
    assert running.until(lambda: gateway in running.space.routes())
    assert running.until(lambda: pod.space.pings("172.31.1.11"), SECONDS), "the host"
    assert pod.space.pings("10.65.0.3"), "another pod"
    assert "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee" in pod.space.run("ip", "neigh", "show")
    running.space.ip("route add default via 172.31.1.1")
    assert running.until(lambda: gateway not in running.space.routes())


def test_25_with_routes_disabled_none_is_added_or_removed(made: Lab) -> None:
    running, _ = one_pod(made)
    space, second = running.space, made.pod(running, "cali2", "10.65.0.3")
    before = space.routes()
    running.tell(felix(route_sync_disabled=True))
    running.settle()
    space.ip("route del 10.65.1.0/26", "route add 203.0.113.0/24 dev cali1 proto 80")
    monitor = made.monitor(space)
    running.tell(second.present("default/other"))
    running.forget("WorkloadEndpoint", "default/web")
    running.settle()
    running.pass_time(61)
    running.settle()
    running.stop()
    running.start()
    assert monitor.events() == []
    running.tell(felix())
    other = "10.65.0.3 dev cali2 proto 80 scope link"
    assert running.until(lambda: space.routes() == (before - {POD}) | {other}), space.routes()
