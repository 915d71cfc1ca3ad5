"""Our programs at pods' interfaces on the real kernel: read back as written, kept against others, left when right."""

import errno
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from crafted import dropped, send, udp
from guarded import ROUTER, WEB, Guarded
from route_node import CLUSTER, Lab, RouteNode, lab, one_pod
from spaces import Pod, Space

from felix_py.kernel import guard_choice, guard_maps, guard_programs
from felix_py.kernel.dump import Reader
from felix_py.kernel.guard import Guard, admitted
from felix_py.kernel.guard_choice import choose
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.objects import KernelRefused, Link
from felix_py.model import IPAddress
from ipip import bpf, traffic

pytestmark = pytest.mark.netns


@pytest.fixture
def space() -> Iterator[Space]:
    made = Space()
    made.ip(*(f"link add cali{number} type veth peer name peer{number}" for number in range(3)))
    yield made
    made.close()


@pytest.fixture
def ours(space: Space) -> Iterator[GuardPrograms]:
    with space.do(GuardPrograms) as made:
        yield made


def links(space: Space) -> dict[str, Link]:
    def look() -> dict[str, Link]:
        with Reader() as reader:
            return {each.name: each for each in reader.links()}

    return space.do(look)


def own(*addresses: str) -> frozenset[IPAddress]:
    return frozenset(map(ip_address, addresses))


EVERY = {
    "a pod": Guard({"cali0": own("10.65.0.2")}, frozenset({"cali1", "cali2"}), frozenset({4789})),
    "of both versions": Guard(
        {"cali0": own("10.65.0.2", "fd65::2", "fd65::3"), "cali1": own("10.65.0.2")}, frozenset({"cali2"})
    ),
    "more ports": Guard({}, frozenset({"cali0", "cali1", "cali2"}), frozenset({4789, 8472})),
    "no address": Guard({"cali0": own(), "cali1": own(), "cali2": own()}),
}


def without_memory(space: Space) -> Guard | None:
    """Read as an agent does that has just started."""
    with space.do(GuardPrograms) as another:
        return space.do(another.read, links(space))


@pytest.mark.parametrize("name", EVERY)
def test_what_is_written_is_read_back(space: Space, ours: GuardPrograms, name: str) -> None:
    assert space.do(ours.read, links(space)) is None
    space.do(ours.write, EVERY[name], links(space))
    assert space.do(ours.read, links(space)) == EVERY[name]
    assert without_memory(space) == EVERY[name]


@pytest.mark.parametrize("name", ["cali1", "cali3"], ids=["refused before", "just made"])
def test_a_pod_is_admitted_as_if_all_had_been_written(space: Space, ours: GuardPrograms, name: str) -> None:
    space.do(ours.write, EVERY["a pod"], links(space))
    if name not in links(space):
        space.ip(f"link add {name} type veth peer name peer3")
    addresses = own("10.65.0.7", "fd65::7")
    space.do(ours.admit, [(links(space)[name], addresses)])
    want = admitted(EVERY["a pod"], [(name, addresses)])
    assert space.do(ours.read, links(space)) == without_memory(space) == want


def test_several_that_come_together_are_guarded_as_each_alone(space: Space, ours: GuardPrograms) -> None:
    space.do(ours.write, Guard({"cali0": own("10.65.0.2")}), links(space))
    addresses = {"cali1": own("10.65.0.7"), "cali2": own("10.65.0.8")}
    space.do(ours.admit, [(links(space)[name], each) for name, each in addresses.items()])
    want = admitted(Guard({"cali0": own("10.65.0.2")}), addresses.items())
    assert space.do(ours.read, links(space)) == without_memory(space) == want


def test_of_several_that_come_together_one_that_somebody_has_is_named(space: Space, ours: GuardPrograms) -> None:
    space.do(ours.write, Guard({"cali0": own("10.65.0.2")}), links(space))
    space.run("tc", "qdisc", "add", "dev", "cali1", "ingress")
    both = [(links(space)[name], own(address)) for name, address in (("cali1", "10.65.0.7"), ("cali2", "10.65.0.8"))]
    with pytest.raises(KernelRefused, match=r"^cali1 has somebody's queueing discipline `ingress`"):
        space.do(ours.admit, both)
    found = without_memory(space)
    assert found is not None
    assert found.sources == {"cali0": own("10.65.0.2"), "cali2": own("10.65.0.8")}, "the other one is none the worse"


def test_one_that_went_meanwhile_leaves_others_guarded(space: Space, ours: GuardPrograms) -> None:
    space.do(ours.write, Guard({"cali0": own("10.65.0.2")}), links(space))
    both = [(links(space)[name], own(address)) for name, address in (("cali1", "10.65.0.7"), ("cali2", "10.65.0.8"))]
    space.ip("link del cali1")
    space.do(ours.admit, both)
    found = without_memory(space)
    assert found is not None
    assert found.sources["cali2"] == own("10.65.0.8")


def test_nobody_is_admitted_before_anybody_is_guarded(space: Space, ours: GuardPrograms) -> None:
    with pytest.raises(KernelRefused, match=r"no programs of ours guard pods yet"):
        space.do(ours.admit, [(links(space)["cali0"], own("10.65.0.2"))])


def test_each_turns_into_each_other_and_into_nothing(space: Space, ours: GuardPrograms) -> None:
    for want in (*EVERY.values(), *reversed(EVERY.values()), None, EVERY["a pod"], None):
        space.do(ours.write, want, links(space))
        assert space.do(ours.read, links(space)) == want
    assert "clsact" not in space.run("tc", "qdisc", "show")


def test_an_interface_that_went_is_read_as_such_and_forgotten(space: Space, ours: GuardPrograms) -> None:
    space.do(ours.write, EVERY["of both versions"], links(space))
    index = links(space)["cali1"].index
    space.ip("link del cali1")
    found = without_memory(space)
    assert found is not None
    assert found.sources[f"interface {index}"] == own("10.65.0.2"), "whoever gets this index must not inherit it"
    want = Guard({"cali0": own("10.65.0.2")}, frozenset({"cali2"}))
    space.do(ours.write, want, links(space))
    assert without_memory(space) == want


def test_an_interface_that_goes_while_it_is_guarded_harms_no_other(space: Space, ours: GuardPrograms) -> None:
    before = links(space)
    space.ip("link del cali1")
    space.do(ours.write, EVERY["no address"], before)
    space.do(ours.write, Guard({"cali0": own(), "cali2": own()}), links(space))
    assert without_memory(space) == Guard({"cali0": own(), "cali2": own()})


def test_programs_of_another_version_are_replaced_by_full_ones(
    space: Space, ours: GuardPrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.do(ours.write, EVERY["a pod"], links(space))
    monkeypatch.setattr(guard_programs, "version", lambda: "another")
    with space.do(GuardPrograms) as another:
        assert space.do(another.read, links(space)) == Guard(), "ours, and as nobody wants it"
        space.do(another.write, EVERY["a pod"], links(space))
        assert without_memory(space) == EVERY["a pod"]
        assert space.run("tc", "filter", "show", "dev", "cali0", "ingress").count("felix-guard:") == 1
        space.do(another.write, None, links(space))
    assert space.run("tc", "filter", "show", "dev", "cali0", "ingress") == ""


def test_filters_of_others_stay(space: Space, ours: GuardPrograms) -> None:
    space.run("tc", "qdisc", "add", "dev", "cali0", "clsact")
    space.run(
        "tc", "filter", "add", "dev", "cali0", "ingress", "prio", "9", "protocol", "ip", "u32", "match", "u8", 0, 0
    )
    before = space.run("tc", "filter", "show", "dev", "cali0", "ingress")
    space.do(ours.write, EVERY["a pod"], links(space))
    space.do(ours.write, None, links(space))
    assert space.run("tc", "filter", "show", "dev", "cali0", "ingress") == before


def test_a_queueing_discipline_that_diverts_packets_is_named_and_left_alone(space: Space, ours: GuardPrograms) -> None:
    space.run("tc", "qdisc", "add", "dev", "cali0", "ingress")
    for _ in range(2):
        with pytest.raises(
            KernelRefused, match=r"^cali0 has somebody's queueing discipline `ingress`.*podGuard: nftables"
        ):
            space.do(ours.write, EVERY["a pod"], links(space))
        found = space.do(ours.read, links(space))
        assert found is not None
        assert "cali0" not in found.sources
        assert found.refused == {"cali1", "cali2"}, "others are guarded all the same"
    assert "qdisc ingress" in space.run("tc", "qdisc", "show", "dev", "cali0")


def test_a_map_that_is_full_says_so_and_takes_what_fits_afterwards(space: Space, ours: GuardPrograms) -> None:
    everything = frozenset(ip_network("10.0.0.0/15"))  # twice as many as the map takes
    with pytest.raises(KernelRefused, match=r"cannot be guarded by BPF: Argument list too long; podGuard: nftables"):
        space.do(ours.write, Guard({"cali0": everything}), links(space))
    space.do(ours.write, EVERY["a pod"], links(space))
    assert without_memory(space) == EVERY["a pod"]


# --- which guard


def test_this_kernel_takes_the_programs_and_nothing_of_the_attempt_is_left(space: Space) -> None:
    assert space.do(choose, "auto", filtered=True) == ("ebpf", "ebpf: this kernel takes our BPF programs")
    assert "clsact" not in space.run("tc", "qdisc", "show")


def refusing(code: int) -> None:
    raise OSError(code, "no")


def test_where_bpf_is_forbidden_the_table_guards_pods() -> None:
    without = ["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin", sys.executable, "-c"]
    script = "from felix_py.kernel.guard_choice import choose; print(*choose('auto', filtered=True))"
    said = subprocess.run([*without, script], check=True, capture_output=True, text=True).stdout.strip()
    sentence = "BPF is forbidden here; give CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
    assert said == f"nftables nftables: ebpf cannot do it: {sentence}"


def test_a_kernel_without_bpf_is_named() -> None:
    assert guard_choice.reason(OSError(errno.ENOSYS, "Function not implemented")) == "this kernel has no BPF"


def test_programs_that_were_not_built_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(guard_choice, "OBJECT", tmp_path_factory.mktemp("none") / "guard.bpf.o")
    sentence = "guard.bpf.o was not built: apt-get install clang, then install felix-py again"
    assert choose("auto", filtered=True).why == f"nftables: ebpf cannot do it: {sentence}"


def test_who_asks_gets_it_and_without_a_filter_nobody_does() -> None:
    assert choose("nftables", filtered=True) == ("nftables", "nftables: the settings say so")
    assert choose("ebpf", filtered=True) == ("ebpf", "ebpf: the settings say so")
    assert choose("ebpf", filtered=False).kind == "none"


# --- kept by an agent


def programs(node: RouteNode, interface: str = "cali1") -> str:
    """Return what stands at both ends of an interface."""
    return "".join(
        node.space.run("tc", "filter", "show", "dev", interface, end, check=False) for end in ("ingress", "egress")
    )


def guarded_pod(made: Lab) -> tuple[RouteNode, Pod, str]:
    running, pod = one_pod(made)
    running.settle()
    return running, pod, programs(running)


@pytest.mark.parametrize(
    "harm",
    [
        "filter del dev cali1 ingress",
        "qdisc del dev cali1 clsact",
        "filter del dev cali1 ingress prio 80",
    ],
)
def test_programs_that_somebody_removes_are_back_within_a_second(harm: str) -> None:
    with lab() as made:
        running, _, before = guarded_pod(made)
        assert before.count("felix-guard:") == 1
        start = time.monotonic()
        running.space.run("tc", *harm.split())
        assert running.until(lambda: programs(running).count("felix-guard:") == 1)
        assert time.monotonic() - start < 1
        assert running.loud() == []
        assert running.events("guard.put")[-1]["what"] == "cali1 from 10.65.0.2 only"


def test_what_somebody_changes_in_the_maps_is_found_with_everything_else() -> None:
    with lab() as made:
        running, pod, _ = guarded_pod(made)
        index = pod.index
        forged = struct.pack("=I", index) + socket.inet_aton("10.65.0.99")

        def forge() -> None:
            found = traffic.find(index, traffic.INGRESS)
            assert found is not None
            maps = bpf.program_maps(found.program)
            bpf.write(maps["sources"], forged, b"\1")
            guard_maps.close(maps)

        running.space.do(forge)
        running.pass_time(61.0)
        wanted = Guard({"cali1": own("10.65.0.2")}, ports=frozenset({4789}))
        assert running.until(lambda: without_memory(running.space) == wanted)


def test_a_restarted_agent_writes_nothing_and_counters_go_on() -> None:
    with lab() as made:
        guarded = Guarded(made, *CLUSTER)
        running = guarded.node
        running.settle()
        arrives = guarded.listener(guarded.router)
        send(guarded.web.space, udp("10.65.0.99", ROUTER, b"stolen"))
        before, written = programs(running), len(running.events("guard.put"))
        running.stop()
        send(guarded.web.space, udp("10.65.0.99", ROUTER, b"stolen"))
        running.start()
        running.settle()
        send(guarded.web.space, udp("10.65.0.99", ROUTER, b"stolen"))
        send(guarded.web.space, udp(WEB, ROUTER, b"own"))
        assert arrives.next() == (b"own", WEB)
        assert programs(running) == before
        assert len(running.events("guard.put")) == written
        assert dropped(guarded.host) == {"pod-spoofed": 3}


def test_forwarded_packets_meet_no_chain_of_ours() -> None:
    with lab() as made:
        running, _, _ = guarded_pod(made)
        assert "hook" not in running.space.run("nft", "list", "ruleset")


def test_each_guard_takes_over_from_the_other_and_switched_off_both_are_gone() -> None:
    with lab() as made:
        running, _, _ = guarded_pod(made)
        for kind in ("nftables", "ebpf", "nftables", "ebpf"):
            running.stop()
            running.settings = running.settings._replace(guard=kind)
            running.start()
            running.settle()
            ruleset = running.space.run("nft", "list", "ruleset")
            assert ("chain from-pod" in ruleset, "felix-guard:" in programs(running)) == (
                kind == "nftables",
                kind == "ebpf",
            )
            order = [each["event"] for each in running.log if each["event"].startswith(("guard.", "netfilter."))]
            assert (
                order[-2:]
                == {
                    "ebpf": ["guard.put", "netfilter.put"],
                    "nftables": ["netfilter.put", "guard.delete"],
                }[kind]
            ), "who guards next does so before the other one stops"
        running.stop()
        running.settings = running.settings._replace(netfilter=False)
        running.start()
        assert running.until(lambda: programs(running) == "")
        assert running.space.run("nft", "list", "ruleset") == ""
        assert running.loud() == []


def test_programs_that_are_refused_leave_pods_to_the_table_and_no_pod_is_attached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with lab() as made:
        running, _ = one_pod(made, guard="nftables")
        running.stop()
        running.settings = running.settings._replace(guard="ebpf")
        monkeypatch.setattr(bpf, "load", lambda *_: refusing(1))
        running.start()
        running.settle()
        assert "chain from-pod" in running.space.run("nft", "list", "ruleset")
        assert any("withheld" in each["reason"] for each in running.events("step.refused"))
        monkeypatch.undo()
        assert running.until(lambda: "chain from-pod" not in running.space.run("nft", "list", "ruleset"), 5.0)
        assert "felix-guard:" in programs(running)


def test_a_pod_is_guarded_before_it_is_routed() -> None:
    with lab() as made:
        running, _, _ = guarded_pod(made)
        seen = made.monitor(running.space)
        running.tell(made.pod(running.space, "cali2", "10.65.0.3").present("default/two"))
        assert running.until(lambda: seen.of("10.65.0.3/32"))
        turn = [event["event"] for event in running.log if event["event"] in ("guard.put", "route.put")]
        assert turn[-2:] == ["guard.put", "route.put"]
