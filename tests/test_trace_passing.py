"""What becomes of one packet at one machine: where it goes, and the reason for each way to end."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest
from fake_sight import FakeSight, found

from felix_py.kernel.base_chains import Chain
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard
from felix_py.kernel.objects import RouteType
from felix_py.kernel.wire import Refusal
from felix_py.trace.passing import passing
from felix_py.trace.seams import TunnelFacts
from felix_py.trace.words import Answer, Next, Packet, Question, Verdict

POD, REMOTE_POD = IPv4Address("10.65.0.1"), IPv4Address("10.65.3.3")
ME, REMOTE = IPv4Address("172.31.1.11"), IPv4Address("172.31.2.12")
OUT = Packet(POD, REMOTE_POD)
BACK = Packet(REMOTE, ME, Packet(REMOTE_POD, POD), "ipip")
GATEWAY = IPv4Address("169.254.1.1")
TUNNELS = {"tunl0": TunnelFacts("kernel", ME, frozenset({REMOTE}))}


def ask(packet: Packet, sight: FakeSight, via: str | None = str(GATEWAY), tunnels: object = TUNNELS) -> Answer:
    return passing(Question(packet, ip_address(via) if via else None), sight, tunnels)  # type: ignore[arg-type]


def test_a_pods_packet_is_wrapped_and_handed_to_the_router() -> None:
    answer = ask(OUT, FakeSight())
    wraps, sends = answer.legs
    assert (wraps.arrives, wraps.device, wraps.mtu, wraps.prefix) == ("cali1", "tunl0", 1480, "10.65.3.0/26")
    assert (wraps.verdict, wraps.tunnel) == (Verdict.ENCAPSULATED, "ipip by kernel, 172.31.1.11 to 172.31.2.12")
    assert (sends.verdict, sends.device, sends.mtu) == (Verdict.FORWARDED, "eth0", 1500)
    assert answer.next == Next(IPv4Address("172.31.1.1"), Packet(ME, REMOTE, OUT, "ipip"))


def test_a_tunnels_packet_is_unwrapped_and_handed_to_the_pod() -> None:
    answer = ask(BACK, FakeSight(), via="172.31.1.11")
    assert [leg.verdict for leg in answer.legs] == [Verdict.DECAPSULATED, Verdict.FORWARDED]
    assert [leg.arrives for leg in answer.legs] == ["eth0", "tunl0"]
    assert answer.next == Next(POD, Packet(REMOTE_POD, POD))


def test_a_packet_for_the_machine_itself_ends_there() -> None:
    answer = ask(Packet(REMOTE, ME), FakeSight(), via="172.31.1.11")
    assert (answer.legs[0].verdict, answer.legs[0].route, answer.next) == (Verdict.DELIVERED, "local 172.31.1.11", None)


def _vxlan(sight: FakeSight) -> None:
    sight.links["vxlan.calico"] = replace(sight.links["tunl0"], name="vxlan.calico", mtu=1450)
    sight.routes = [each for each in sight.routes if each.device != "tunl0"]
    sight.routes.append(found("10.65.3.0/26", "vxlan.calico", "10.65.3.0"))


def test_vxlan_goes_to_the_node_that_the_forwarding_entry_names() -> None:
    sight = FakeSight()
    _vxlan(sight)
    sight.forwarded["10.65.3.0"] = REMOTE
    answer = ask(replace(OUT, size=1450), sight, tunnels={"vxlan.calico": TunnelFacts("kernel", ME)})
    assert answer.legs[0].tunnel == "vxlan by kernel, 172.31.1.11 to 172.31.2.12"
    assert answer.next is not None
    assert (answer.next.packet.destination, answer.next.packet.size) == (REMOTE, 1500)
    back = ask(replace(BACK, encapsulation="vxlan"), sight, via="172.31.1.11")
    assert [(leg.verdict, leg.device) for leg in back.legs] == [
        (Verdict.DECAPSULATED, "vxlan.calico"),
        (Verdict.FORWARDED, "cali1"),
    ]


def test_vxlan_without_a_forwarding_entry_reaches_nobody() -> None:
    sight = FakeSight()
    _vxlan(sight)
    assert ask(OUT, sight).legs[-1].reason == "vxlan.calico has no forwarding entry for 10.65.3.0: no node gets it"


def test_the_size_grows_by_the_outer_header() -> None:
    answer = ask(replace(OUT, size=1480), FakeSight())
    assert answer.next is not None
    assert answer.next.packet.size == 1500


def test_a_route_of_several_next_hops_says_so() -> None:
    sight = FakeSight()
    sight.routes.append(replace(found("198.51.100.0/24", "eth0", "172.31.1.1"), weights=2))
    assert ask(Packet(None, IPv4Address("198.51.100.7")), sight, via=None).legs[0].route == (
        "198.51.100.0/24 via 172.31.1.1 (one of 2 next hops)"
    )


def _down(sight: FakeSight, name: str, **changed: bool) -> None:
    sight.links[name] = replace(sight.links[name], **changed)  # type: ignore[arg-type]


def _no_route(sight: FakeSight) -> None:
    sight.routes = [each for each in sight.routes if "10.65.3" not in str(each.prefix)]


def _strict(sight: FakeSight) -> None:
    sight.table = None
    sight.refused["10.65.3.3", "cali1"] = Refusal(22, "Invalid argument")
    sight.parameters["net/ipv4/conf/cali1/rp_filter"] = "1"
    sight.routes.append(found("10.65.0.2/32", "cali2"))


def _own(sight: FakeSight) -> None:
    sight.table = None
    sight.refused["10.65.3.3", "eth0"] = Refusal(22, "Invalid argument")


def _no_forwarding(sight: FakeSight) -> None:
    sight.refused["10.65.3.3", "cali1"] = Refusal(113, "No route to host")
    sight.parameters["net/ipv4/conf/cali1/forwarding"] = "0"


def _docker(sight: FakeSight) -> None:
    sight.chains = (Chain("ip filter", "FORWARD", "forward", "drop", ""),)


def _from(address: str) -> Packet:
    return Packet(IPv4Address(address), REMOTE_POD)


ENDS: list[object] = [
    pytest.param(_no_route, OUT, "no route leads to 10.65.3.3", id="no route"),
    pytest.param(
        lambda _: None, Packet(POD, IPv4Address("10.65.0.60")), "it ends in a blackhole, 10.65.0.0/26", id="blackhole"
    ),
    pytest.param(lambda sight: _down(sight, "tunl0", up=False), OUT, "tunl0 is down", id="the tunnel's device is down"),
    pytest.param(
        lambda sight: sight.links.pop("tunl0"), OUT, "tunl0 does not exist", id="the tunnel's device is missing"
    ),
    pytest.param(lambda sight: _down(sight, "eth0", running=False), OUT, "eth0 has no carrier", id="no carrier"),
    pytest.param(
        lambda sight: _down(sight, "cali1", up=False), OUT, "it does not arrive: cali1 is down", id="arrives nowhere"
    ),
    pytest.param(
        lambda sight: sight.neighbours.update({"172.31.1.1": "failed"}),
        OUT,
        "172.31.1.1 does not answer ARP on eth0: neighbour failed",
        id="the next hop does not answer",
    ),
    pytest.param(
        lambda _: None,
        replace(OUT, size=1481),
        "1481 bytes with don't fragment do not fit tunl0, whose MTU is 1480",
        id="too large for the tunnel",
    ),
    pytest.param(
        lambda sight: _down(sight, "eth0", mtu=1400),
        replace(OUT, size=1480),
        "1500 bytes with don't fragment do not fit eth0, whose MTU is 1400",
        id="too large for the underlay",
    ),
    pytest.param(
        _no_forwarding,
        OUT,
        "this machine does not forward what comes in by cali1: net/ipv4/conf/cali1/forwarding is 0",
        id="no forwarding",
    ),
    pytest.param(_docker, OUT, "chain ip filter FORWARD drops what no rule of it accepts", id="a firewall of others"),
]


@pytest.mark.parametrize(("broken", "packet", "reason"), ENDS)
def test_where_it_ends_is_said(broken: Callable[[FakeSight], object], packet: Packet, reason: str) -> None:
    sight = FakeSight()
    broken(sight)
    answer = ask(packet, sight)
    assert (answer.legs[-1].verdict, answer.legs[-1].reason, answer.next) == (Verdict.DROPPED, reason, None)


def test_a_strict_reverse_path_filter_is_named_with_the_two_interfaces() -> None:
    sight = FakeSight()
    _strict(sight)
    # The packet came in by the interface that has the address it was handed to; its own route leaves by another.
    sight.links["cali1"] = replace(sight.links["cali1"], addresses=frozenset({"169.254.1.1/32"}))
    assert ask(_from("10.65.0.2"), sight).legs[-1].reason == (
        "rp_filter of cali1 is strict: 10.65.0.2 came in there, but the route back to it leaves by cali2"
    )


def test_a_packet_from_the_machines_own_address_comes_from_nobody() -> None:
    sight = FakeSight()
    _own(sight)
    assert ask(_from(str(ME)), sight, via="172.31.1.11").legs[-1].reason == (
        "172.31.1.11 is this machine's own address, and nobody else may send from it"
    )


@pytest.mark.parametrize(
    ("changed", "tunnels", "reason"),
    [
        pytest.param({}, {}, None, id="by the filter's set alone"),
        pytest.param(
            {"source": IPv4Address("203.0.113.9")},
            {},
            "tunnel-stranger of table inet felix: 203.0.113.9 is no known node",
            id="a stranger, by the filter",
        ),
        pytest.param({"source": IPv4Address("192.0.2.7")}, {}, None, id="an external node"),
        pytest.param(
            {},
            {"tunl0": TunnelFacts("ebpf", ME, frozenset())},
            "172.31.2.12 is no node from which tunl0 takes packets",
            id="a stranger, by the driver",
        ),
    ],
)
def test_who_may_send_through_the_tunnel(
    changed: dict[str, IPv4Address], tunnels: dict[str, TunnelFacts], reason: str | None
) -> None:
    first = ask(replace(BACK, **changed), FakeSight(), via="172.31.1.11", tunnels=tunnels).legs[0]  # type: ignore[arg-type]
    assert first.verdict is (Verdict.DROPPED if reason else Verdict.DECAPSULATED)
    assert reason is None or first.reason == reason


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(_from("10.65.0.9"), "pod-spoofed of table inet felix: 10.65.0.9 is no address", id="not its own"),
        pytest.param(BACK, "pod-encapsulated of table inet felix: pods may not send tunnel packets", id="a tunnel"),
    ],
)
def test_what_a_pod_may_not_send_ends_at_our_filter(packet: Packet, reason: str) -> None:
    sight = FakeSight()
    sight.links["cali1"] = replace(sight.links["cali1"], addresses=frozenset({"169.254.1.1/32"}))
    assert ask(packet, sight).legs[-1].reason.startswith(reason)


def test_an_interface_of_no_known_pod_carries_nothing() -> None:
    sight = FakeSight()
    assert sight.table is not None
    sight.table = replace(sight.table, elements={})
    unknown = "interface-unknown of table inet felix: cali1 is of no known pod"
    assert ask(OUT, sight).legs[-1].reason == unknown
    assert ask(Packet(REMOTE, POD), sight, via="172.31.1.11").legs[-1].reason == unknown


def guarded(**sources: IPv4Address) -> FakeSight:
    """Return a node whose pods our programs guard; its table knows nothing of them."""
    sight = FakeSight()
    sight.links["cali1"] = replace(sight.links["cali1"], addresses=frozenset({"169.254.1.1/32"}))
    sight.table = FilterTable("table inet felix {\n}\n")
    sight.guard = Guard({name: frozenset({address}) for name, address in sources.items()})
    return sight


@pytest.mark.parametrize(
    ("packet", "sight", "reason"),
    [
        pytest.param(
            _from("10.65.0.9"), guarded(cali1=POD), "pod-spoofed of our programs: 10.65.0.9 is no address", id="spoofed"
        ),
        pytest.param(BACK, guarded(cali1=POD), "pod-encapsulated of our programs: pods may not send", id="a tunnel"),
        pytest.param(OUT, guarded(), "interface-unknown of our programs: cali1 is of no known pod", id="unknown"),
    ],
)
def test_what_our_programs_do_not_let_pass_ends_there(packet: Packet, sight: FakeSight, reason: str) -> None:
    assert ask(packet, sight).legs[-1].reason.startswith(reason)


def test_our_programs_let_a_pods_own_packets_pass_both_ways() -> None:
    assert ask(OUT, guarded(cali1=POD)).legs == ask(OUT, FakeSight()).legs
    back = Packet(REMOTE, POD)
    assert ask(back, guarded(cali1=POD), via="172.31.1.11").legs == ask(back, FakeSight(), via="172.31.1.11").legs


def test_where_nothing_guards_pods_trace_claims_nothing() -> None:
    sight = guarded()
    sight.guard = None
    assert ask(OUT, sight).legs[-1].verdict is not Verdict.DROPPED


def test_tunnels_into_themselves_end() -> None:
    sight = FakeSight()
    sight.routes.append(replace(found("10.65.0.1/32", kind=RouteType.LOCAL)))
    loop = Packet(REMOTE, ME, Packet(REMOTE_POD, ME), "ipip")
    assert ask(loop, sight, via="172.31.1.11").legs[-1].verdict is Verdict.DELIVERED
