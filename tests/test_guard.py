"""What our programs at pods' interfaces should let pass, and how they and the table take over from each other."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest
from agent_node import host
from builders import TWO_RACKS, link, links, pod, pool
from fakes import FakeFilter, FakeHost, FakeParameters, FakeTunnels

from felix_py.calc import endpoints, netfilter
from felix_py.calc.desired import Desired, desired
from felix_py.calc.netfilter import IPIP, TunnelProtocol
from felix_py.kernel import guard, guard_maps, guard_programs, reconcile
from felix_py.kernel.guard import Guard
from felix_py.kernel.guard_maps import Contents
from felix_py.kernel.guarding import Newcomer
from felix_py.kernel.kernel import Kernel, Report
from felix_py.kernel.objects import (
    DeleteFilterTable,
    DeleteGuard,
    KernelRefused,
    KernelState,
    PutFilterTable,
    PutGuard,
    PutSysctl,
)
from felix_py.kernel.objects import Link as KernelLink
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.wire import ProgramEvent
from felix_py.model import IPAddress, IpipMode, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState, Event, Present
from ipip import bpf_object
from ipip.bpf_object import MapShape

A1 = NodeName("a1")
WEB = WorkloadEndpoint("web", A1, "cali1", (ip_network("10.65.0.2/32"), ip_network("fd65::2/128")))
OTHER = WorkloadEndpoint("other", A1, "cali2", (ip_network("10.65.0.3/32"),))


def own(*addresses: str) -> frozenset[IPAddress]:
    return frozenset(map(ip_address, addresses))


def wish(*events: Event, guarded: bool = True, filtered: bool = True, pods: Sequence[str] = ("cali9",)) -> Desired:
    seen = links(link("eth0", "172.31.1.11/24"), link("cali0000000web0"), *map(link, pods))
    state = ClusterState().after_all((*TWO_RACKS, *events))
    return desired(state, {}, A1, seen, filtered=filtered, guarded=guarded)


# --- the wish


def test_pods_have_their_addresses_and_what_no_pod_has_is_refused() -> None:
    found = netfilter.guard((WEB, OTHER), ["eth0", "cali1", "cali9", "lo"], {})
    assert found == Guard({"cali1": own("10.65.0.2", "fd65::2")}, frozenset({"cali9"}), frozenset({4789}))


def test_an_interface_that_is_not_called_as_pods_are_is_left_alone() -> None:
    elsewhere = WorkloadEndpoint("vm", A1, "tap1", (ip_network("10.65.0.4/32"),))
    assert netfilter.guard((elsewhere,), ["tap1"], {}) == Guard(ports=frozenset({4789}))


def test_a_pod_that_is_admitted_is_what_the_guard_of_all_pods_would_say() -> None:
    there = ["cali1", "cali2", "cali9"]
    found = guard.admitted(netfilter.guard((WEB,), there, {}), [("cali2", own("10.65.0.3"))])
    assert found == netfilter.guard((WEB, OTHER), there, {})


def test_two_endpoints_of_one_interface_may_both_send() -> None:
    second = WorkloadEndpoint("second", A1, "cali1", (ip_network("10.65.0.9/32"),))
    found = netfilter.guard((WEB, second), ["cali1"], {})
    assert found.sources == {"cali1": own("10.65.0.2", "fd65::2", "10.65.0.9")}


def test_pods_may_not_send_to_the_ports_of_tunnels() -> None:
    tunnels = {"tunl0": IPIP, "vxlan.calico": TunnelProtocol(17, 8472)}
    assert netfilter.guard((), [], tunnels).ports == {4789, 8472}


def test_a_node_wants_programs_and_a_table_that_leaves_pods_to_them() -> None:
    state = wish(pool(mode=IpipMode.NEVER)).state
    assert state.guard is not None
    assert state.guard.sources == {"cali0000000web0": own("10.65.0.5")}
    assert state.guard.refused == {"cali9"}
    assert state.netfilter is not None
    assert "chain" not in state.netfilter.rules
    assert state.netfilter.elements.keys() == {"nodes", "pools"}


def test_what_guards_tunnels_and_masquerades_stays_in_the_table() -> None:
    state = wish(pool(mode=IpipMode.ALWAYS)).state
    assert state.netfilter is not None
    chains = {line.split()[1] for line in state.netfilter.rules.splitlines() if line.startswith("\tchain ")}
    assert chains == {"encapsulated", "input", "postrouting"}


@pytest.mark.parametrize(("guarded", "filtered"), [(False, True), (True, False), (False, False)])
def test_no_programs_are_wanted_where_the_table_guards_pods_or_nothing_does(guarded: bool, filtered: bool) -> None:  # noqa: FBT001 - parameters of a test
    assert wish(guarded=guarded, filtered=filtered).state.guard is None


# --- the programs


OBJECT = bpf_object.parse(guard_programs.OBJECT.read_bytes())
SOURCE = guard_programs.OBJECT.with_suffix(".c").read_text()


def test_the_object_offers_both_programs_and_all_maps() -> None:
    assert OBJECT.programs.keys() == {guard_programs.FROM_POD, guard_programs.REFUSE}
    assert OBJECT.maps == {
        "pods": MapShape(kind=1, key=4, value=1, entries=16384, flags=1),
        "sources": MapShape(kind=1, key=8, value=1, entries=65536, flags=1),
        "sources6": MapShape(kind=1, key=20, value=1, entries=65536, flags=1),
        "ports": MapShape(kind=2, key=4, value=2 * guard_maps.MOST_PORTS, entries=1, flags=0),
        "counters": MapShape(kind=6, key=4, value=guard_maps.COUNT.size, entries=len(guard_maps.COUNTERS), flags=0),
    }


def test_whoever_has_the_first_program_has_all_maps() -> None:
    assert {name for _, name in OBJECT.programs[guard_programs.FROM_POD].references} == OBJECT.maps.keys()
    assert {name for _, name in OBJECT.programs[guard_programs.REFUSE].references} == {"counters"}


def test_the_order_of_the_counters_is_that_of_the_source() -> None:
    words = SOURCE.partition("enum reason {")[2].partition(", REASONS")[0].replace(",", " ").split()
    assert [name.rpartition("-")[2] for name in guard_maps.COUNTERS] == [word.lower() for word in words]


def test_an_older_verifier_takes_programs_of_this_length() -> None:
    assert max(len(each.code) // 8 for each in OBJECT.programs.values()) < 4096, "the limit before Linux 5.2"


def test_more_ports_than_the_map_holds_are_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match="5 ports of tunnels, and room for 4"):
        guard_maps.change({}, Contents(), Contents(ports=frozenset(range(1, 6))))


# --- in words


def test_a_difference_is_told_in_a_line() -> None:
    one = Guard({"cali1": own("10.65.0.2")}, frozenset({"cali9"}), frozenset({4789}))
    assert guard.difference(one, None) == (
        "no programs of ours are there; tunnels at UDP port 4789; cali1 from 10.65.0.2 only; cali9 of no known pod"
    )
    more = Guard({"cali1": own("10.65.0.2"), "cali9": own("fd65::9", "10.65.0.9")}, ports=frozenset({4789}))
    assert guard.difference(more, one) == "cali9 from 10.65.0.9, fd65::9 only"
    assert guard.difference(Guard(ports=frozenset({4789})), one) == "cali1 forgotten; cali9 forgotten"
    assert guard.difference(one, one) == "nothing"
    many = Guard({f"cali{number}": own() for number in range(5)})
    assert guard.difference(many, Guard()).endswith("; 2 interfaces more")


def test_a_plan_shows_it() -> None:
    step = PutGuard(Guard({"cali1": own("10.65.0.2")}), Guard())
    assert reconcile.in_words(step) == ("set guard", "of pods' interfaces", "cali1 from 10.65.0.2 only")
    assert reconcile.in_words(DeleteGuard()) == ("delete guard", "of pods' interfaces", "")


# --- kept by the kernel's thread


@dataclass
class FakePrograms:
    """Our programs in memory; `felix_py.kernel.guard_programs` in memory."""

    stands: Guard | None = None
    refusal: str | None = None
    looked: list[frozenset[str] | None] = field(default_factory=list)
    together: list[int] = field(default_factory=list)

    def read(self, _links: Mapping[str, KernelLink], names: Collection[str] | None = None) -> Guard | None:
        self.looked.append(None if names is None else frozenset(names))
        return self.stands

    def write(self, want: Guard | None, _links: Mapping[str, KernelLink]) -> None:
        if self.refusal is not None:
            raise KernelRefused(self.refusal)
        self.stands = want

    def admit(self, pods: Sequence[tuple[KernelLink, frozenset[IPAddress]]]) -> None:
        if self.refusal is not None:
            raise KernelRefused(self.refusal)
        assert self.stands is not None
        self.together.append(len(pods))
        self.stands = guard.admitted(self.stands, [(link.name, sources) for link, sources in pods])


class Kept:
    """A kernel in memory with both."""

    def __init__(self) -> None:
        self.host: FakeHost = host()
        self.table, self.programs = FakeFilter(), FakePrograms()
        parts = (self.host, FakeTunnels(self.host), KernelRefused, FakeParameters(self.host), NoPurger())
        self.kernel = Kernel(*parts, netfilter=self.table, guard=self.programs)

    def report(self, want: KernelState, now: float = 0.0) -> Report:
        self.kernel.catch_up(now)
        if self.kernel.resync_cause:
            self.kernel.resync()
        return self.kernel.make(want, now)

    def make(self, want: KernelState, now: float = 0.0) -> list[type]:
        ours = PutFilterTable | DeleteFilterTable | PutGuard | DeleteGuard
        return [type(step) for step in self.report(want, now).done if isinstance(step, ours)]


def test_who_guards_next_does_so_before_the_other_stops() -> None:
    kept = Kept()
    by_programs, by_table = wish().state, wish(guarded=False).state
    assert kept.make(by_table) == [PutFilterTable]
    assert kept.make(by_programs) == [PutGuard, PutFilterTable]
    assert kept.make(by_programs) == []
    assert kept.make(by_table) == [PutFilterTable, DeleteGuard]
    assert kept.make(by_programs) == [PutGuard, PutFilterTable]
    assert kept.make(KernelState()) == [DeleteFilterTable, DeleteGuard]


def test_programs_that_are_refused_leave_the_table_as_it_is_until_they_are_taken() -> None:
    kept = Kept()
    by_programs, by_table = wish().state, wish(guarded=False).state
    kept.make(by_table)
    kept.programs.refusal = "BPF is forbidden here"
    failed = {type(step): why for step, why in kept.report(by_programs).failed}
    assert failed[PutGuard] == "BPF is forbidden here"
    assert failed[PutFilterTable].startswith("withheld, since it would leave pods")
    again = {type(step): why for step, why in kept.report(by_programs, now=0.05).failed}
    assert again == failed, "before it is tried again too"
    assert kept.table.table == by_table.netfilter
    kept.programs.refusal = None
    assert kept.make(by_programs, now=1.0) == [PutGuard, PutFilterTable]


def test_only_interfaces_of_pods_to_which_something_happened_are_looked_at() -> None:
    kept = Kept()
    for _ in range(2):  # the first go sets parameters of the pod's interface, which the second one hears of
        kept.make(wish().state)
    kept.programs.looked.clear()
    kept.make(wish().state)
    assert kept.programs.looked == []
    kept.host.add_link(link("cali7"))
    kept.host.add_link(link("eth7"))
    kept.make(wish().state)
    assert kept.programs.looked == [{"cali7"}]
    kept.kernel.must_read("resync")
    kept.make(wish().state)
    assert kept.programs.looked[1:] == [None]


def test_a_new_pod_changes_the_programs_and_not_the_table() -> None:
    kept = Kept()
    kept.make(wish().state)
    assert kept.make(wish(pod("default/nine", "a1", "cali9", "10.65.0.9/32")).state) == [PutGuard]
    assert kept.programs.stands is not None
    assert kept.programs.stands.sources["cali9"] == own("10.65.0.9")


NINE = pod("default/nine", "a1", "cali9", "10.65.0.9/32")
EIGHT = pod("default/eight", "a1", "cali8", "10.65.0.8/32")


def newcomer(event: Present, given: Callable[[], Mapping[str, str]] | None = None) -> Newcomer:
    value = event.value
    assert isinstance(value, WorkloadEndpoint)
    there = links(link(value.interface))[value.interface]
    sources = frozenset(network.network_address for network in value.networks)
    return Newcomer(there, sources, lambda table: netfilter.admitted(table, value), given)


def admit(kept: Kept, *events: Present) -> bool:
    return kept.kernel.admit([newcomer(each) for each in events or (NINE,)])


@pytest.mark.parametrize("guarded", [True, False], ids=["by programs", "by the table"])
def test_after_a_pod_was_admitted_a_turn_finds_nothing_to_do(*, guarded: bool) -> None:
    kept = Kept()
    for _ in range(2):
        kept.make(wish(guarded=guarded).state)
    assert admit(kept)
    assert kept.make(wish(NINE, guarded=guarded).state) == []


def test_nobody_is_admitted_while_who_guards_is_unknown_refused_or_changing() -> None:
    kept = Kept()
    assert not admit(kept), "before anything was read"
    kept.make(wish(guarded=False).state)
    kept.programs.stands = Guard()  # of an agent before this one, which went over to them
    kept.kernel.must_read("resync")
    kept.kernel.resync()
    kept.kernel.only_routes(wish().state)
    assert not admit(kept), "while both guard"
    for _ in range(2):
        kept.make(wish().state)
    kept.programs.refusal = "BPF is forbidden here"
    assert not admit(kept)
    kept.programs.refusal = None
    assert not admit(kept), "before it is known what stands there"
    assert kept.make(wish(NINE).state) == [PutGuard]
    assert admit(kept)


@pytest.mark.parametrize("guarded", [True, False], ids=["by programs", "by the table"])
def test_those_who_come_together_are_guarded_in_one_go(*, guarded: bool) -> None:
    kept = Kept()
    for _ in range(2):
        kept.make(wish(guarded=guarded).state)
    kept.table.written.clear()
    assert admit(kept, EIGHT, NINE)
    assert kept.programs.together == [2] * guarded
    assert len(kept.table.written) == (not guarded)
    assert kept.make(wish(EIGHT, NINE, guarded=guarded, pods=("cali8", "cali9")).state) == []


@pytest.mark.parametrize("guarded", [True, False], ids=["by programs", "by the table"])
def test_nobody_is_admitted_to_a_table_that_somebody_changed(*, guarded: bool) -> None:
    kept = Kept()
    for _ in range(2):
        kept.make(wish(guarded=guarded).state)
    kept.table.others_changes = True
    assert not admit(kept, EIGHT, NINE)


# --- a pod that was admitted, and what others do to its interface


ROUTED = "net/ipv4/conf/cali9/forwarding"


@pytest.fixture
def known() -> Kept:
    """Give a node at which cali9 has come since the last turn, and its pod was admitted."""
    kept = Kept()
    for _ in range(2):
        kept.make(wish().state)
    kept.host.add_link(link("cali9"))
    kept.host.tell(ProgramEvent(kept.host.link("cali9").index), 0)
    parameters = dict(endpoints.of_workload("cali9", ipv6=False))
    kept.host.sysctls.update(parameters)
    new = newcomer(NINE, lambda: parameters)._replace(link=kept.host.link("cali9"))
    assert kept.kernel.admit([new])
    kept.programs.looked.clear()
    return kept


def test_whom_nobody_has_touched_since_needs_no_look(known: Kept) -> None:
    known.host.sysctls[ROUTED] = "0"  # of which no event tells, so that only a look would
    assert known.report(wish(NINE).state).done == ()
    assert known.programs.looked == []
    known.kernel.must_read("resync")
    assert known.report(wish(NINE).state).done == (PutSysctl(ROUTED, "1"),)


def test_a_parameter_that_somebody_changes_meanwhile_is_set_again(known: Kept) -> None:
    known.kernel.catch_up(0.0)
    known.host.change_parameter(ROUTED, "0")
    assert known.report(wish(NINE).state).done == (PutSysctl(ROUTED, "1"),)


def test_programs_are_looked_at_where_somebody_else_has_attached_one(known: Kept) -> None:
    known.host.tell(ProgramEvent(known.host.link("cali9").index), 0)
    known.make(wish(NINE).state)
    assert known.programs.looked == [{"cali9"}]


def test_an_interface_that_takes_its_name_is_looked_at(known: Kept) -> None:
    known.host.delete_link("cali9")
    known.host.add_link(link("cali9"))
    known.make(wish(NINE).state)
    assert known.programs.looked == [{"cali9"}]


def test_what_comes_after_that_look_is_looked_at_as_ever(known: Kept) -> None:
    known.make(wish(NINE).state)
    known.host.tell(ProgramEvent(known.host.link("cali9").index), 0)
    known.make(wish(NINE).state)
    assert known.programs.looked == [{"cali9"}]
