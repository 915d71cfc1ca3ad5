"""What the lab concludes from what it sees: the ping matrix, the watchers' lines, failures, restarts."""

import random
import struct
from pathlib import Path

import pytest
import yaml

from felix_py.lab import document, faults, health, matrix, proofs, state, watching
from felix_py.lab.matrix import End, Matrix
from felix_py.lab.supervisor import Pause
from felix_py.lab.topology import Topology

DEFAULT = Path(__file__).parents[1] / "deploy" / "lab" / "two-racks.yaml"


@pytest.fixture
def two_racks() -> Topology:
    return document.parse(yaml.safe_load(DEFAULT.read_text()), "two-racks.yaml")


# --- what is waited for


def test_a_router_is_waited_for_until_it_knows_blocks_and_the_networks_beyond_other_routers(
    two_racks: Topology,
) -> None:
    blocks = {str(block) for node in two_racks.nodes for block in node.blocks}
    assert {str(each) for each in health.awaited(two_racks, two_racks.routers[0])} == blocks
    path = DEFAULT.with_name("two-racks-spine.yaml")
    spine = document.parse(yaml.safe_load(path.read_text()), path.name)
    found = {router.name: {str(each) for each in health.awaited(spine, router)} - blocks for router in spine.routers}
    assert found == {"tor": {"172.31.9.0/24"}, "spine": {"172.31.1.0/24", "172.31.2.0/24"}}


# --- pings


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert matrix.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert matrix.checksum(b"\xff") == 0x00FF


def test_a_request_sums_up_to_zero_and_its_reply_is_recognised() -> None:
    request = matrix.echo_request(identifier=77, sequence=5)
    assert matrix.checksum(request) == 0
    header = bytes([0x45, *bytes(19)])
    answer = header + b"\0" + request[1:]
    assert matrix.reply(answer, identifier=77) == 5
    assert matrix.reply(answer, identifier=78) is None
    assert matrix.reply(header + request, identifier=77) is None


def test_the_header_of_a_reply_may_have_options() -> None:
    answer = bytes([0x46, *bytes(23)]) + struct.pack("!BBHHH", 0, 0, 0, 77, 9)
    assert matrix.reply(answer, identifier=77) == 9


ENDS = (End("a1", "ns1", "10.0.0.1", "a1"), End("a1-pod1", "ns2", "10.0.0.2", "a1"), End("pc", "ns3", "10.0.0.3", "pc"))


def test_the_table_marks_every_pair() -> None:
    seconds = {("a1", "a1-pod1"): 0.001, ("a1-pod1", "a1"): 0.002, ("a1", "pc"): 0.003, ("pc", "a1"): 0.004}
    found = Matrix(ENDS, seconds, ENDS)
    assert matrix.table(found) == (
        "         a1   pc\n"
        "a1       · ✓  ✓\n"
        "a1-pod1  ✓ ·  ✗\n"
        "pc       ✓ ✗  ·"
    )  # fmt: skip
    assert found.lost == (("a1-pod1", "pc"), ("pc", "a1-pod1"))
    assert matrix.summary(found) == (
        "4 of 6 pings answered, round trip 1.00 ms to 4.00 ms, median 2.50 ms; lost: a1-pod1 to pc, pc to a1-pod1"
    )


def test_where_only_some_ping_only_they_are_judged() -> None:
    found = Matrix(ENDS, {("a1", "a1-pod1"): 0.001, ("a1", "pc"): 0.003}, ENDS[:1])
    assert matrix.table(found) == (
        "    a1   pc\n"
        "a1  · ✓  ✓"
    )  # fmt: skip
    assert (found.asked, found.lost) == (2, ())


def test_a_plain_table_is_ascii() -> None:
    assert matrix.table(Matrix(ENDS, {("a1", "pc"): 0.001}, ENDS), plain=True).isascii()


# --- route events and pings of others

EVENTS = (
    "[2026-11-24T08:33:01.100000] Deleted 10.65.2.0/26 via 172.31.2.11 dev tunl0 proto 80 onlink ",
    "[2026-11-24T08:33:01.104000] 10.65.0.5 dev cali1 proto 80 scope link ",
    "[2026-11-24T08:33:01.112500] 10.65.2.0/26 via 172.31.2.11 dev tunl0 proto 80 onlink ",
)


def test_a_repair_is_measured_between_the_kernels_own_times() -> None:
    events = watching.route_events(EVENTS)
    assert watching.repair_milliseconds(events, "10.65.2.0/26") == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("lines", "prefix"),
    [
        pytest.param(EVENTS, "10.65.0.5/32", id="it was never deleted"),
        pytest.param(EVENTS[:2], "10.65.2.0/26", id="it did not come back"),
        pytest.param(("", "rubbish"), "10.65.2.0/26", id="no events"),
    ],
)
def test_no_repair_has_no_time(lines: tuple[str, ...], prefix: str) -> None:
    assert watching.repair_milliseconds(watching.route_events(lines), prefix) is None


def test_a_host_route_is_found_without_its_length() -> None:
    assert [event.is_about("10.65.0.5/32") for event in watching.route_events(EVENTS)] == [False, True, False]


def test_the_summary_of_ping_is_read() -> None:
    answers = [f"64 bytes from 10.65.2.1: icmp_seq={number} ttl=62 time=0.03 ms" for number in (1, 2, 4, 5)]
    lines = ("PING 10.65.2.1", *answers, "", "6 packets transmitted, 4 received, 33% packet loss, time 5ms", "rtt ...")
    summary = watching.ping_summary(lines)
    assert summary == watching.PingSummary(
        5, 4, "5 packets transmitted, 4 received; 1 on its way when ping was interrupted"
    ), "3 is lost, 6 is not"
    assert watching.ping_summary(lines[-2:]) == watching.PingSummary(6, 0, lines[-2]), "nothing was answered at all"
    with pytest.raises(state.Refused, match="no summary: PING"):
        watching.ping_summary(lines[:1])


def test_a_lost_packet_or_a_changed_route_is_no_proof() -> None:
    events = watching.route_events(EVENTS)
    with pytest.raises(proofs.NotProved, match="2 of 100 packets were lost"):
        proofs.judge(watching.PingSummary(100, 98, ""), {"a1": ()})
    with pytest.raises(proofs.NotProved, match="routes changed: 3 on tor"):
        proofs.judge(watching.PingSummary(100, 100, ""), {"a1": (), "tor": events})
    assert proofs.judge(watching.PingSummary(100, 100, ""), {"a1": (), "tor": ()}) == (
        "100 packets, none lost; 0 route events on a1, tor"
    )


# --- failures

RACK_B = {("rack-b", "tor"), ("rack-b", "b1"), ("rack-b", "b2")}


@pytest.mark.parametrize(
    ("failed", "cables"),
    [
        pytest.param(set(), set(), id="nothing"),
        pytest.param({"a1"}, {("rack-a", "a1")}, id="a node"),
        pytest.param({"a1.uplink"}, {("rack-a", "a1")}, id="its uplink"),
        pytest.param({"rack-b"}, RACK_B, id="a switch"),
        pytest.param({"rack-b", "b1"}, RACK_B, id="a switch and a node on it"),
        pytest.param({"tor"}, {("rack-a", "tor"), ("rack-b", "tor"), ("outside", "tor")}, id="the router"),
    ],
)
def test_cables_follow_from_what_has_failed(two_racks: Topology, failed: set[str], cables: set[object]) -> None:
    assert faults.pulled(two_racks, frozenset(failed)) == cables


def test_a_failed_machine_runs_no_daemon(two_racks: Topology) -> None:
    assert faults.held_down(two_racks, frozenset({"a1", "tor", "rack-b", "b1.uplink"})) == {"a1", "tor"}


def test_a_reflector_fails_as_a_router_does() -> None:
    lab = document.parse(yaml.safe_load(DEFAULT.with_name("route-reflectors.yaml").read_text()), "lab.yaml")
    assert {"rr1", "rr1.uplink"} <= set(faults.lasting(lab))
    assert {"tor.bgp", "rr1.bgp", "rr2.bgp"} <= set(faults.passing(lab))
    assert faults.held_down(lab, frozenset({"rr1", "rr2.uplink"})) == {"rr1"}
    assert faults.pulled(lab, frozenset({"rr1"})) == {("core", "rr1")}


def test_every_target_is_listed_once(two_racks: Topology) -> None:
    targets = [*faults.lasting(two_racks), *faults.passing(two_racks)]
    assert len(targets) == len(set(targets))
    assert {"a1", "a1.uplink", "a1.agent", "a1.bgp", "tor", "tor.bgp", "rack-b", "client.uplink"} <= set(targets)


def test_quick_deaths_wait_longer_and_a_long_life_forgives() -> None:
    pause = Pause()
    assert [pause.after_life_of(0.2) for _ in range(8)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert pause.after_life_of(60.0) == pytest.approx(0.1)


# --- names


@pytest.mark.parametrize("name", ["", "my-lab", "Lab", "1lab", "a" * 17, "../lab"])
def test_a_bad_name_of_a_lab_is_refused(name: str) -> None:
    with pytest.raises(state.Refused, match="give 1 to 16 of a-z and 0-9"):
        state.lab(name)


def test_two_labs_never_share_a_namespace() -> None:
    letters = "ab1-"
    choose = random.Random(7)  # noqa: S311 - a test's arbitrary names
    seen: dict[str, tuple[str, str]] = {}
    for _ in range(2000):
        lab = "".join(choose.choices("ab1", k=choose.randint(1, 4)))
        machine = "".join(choose.choices(letters, k=choose.randint(1, 5)))
        owner = seen.setdefault(state.Lab(lab).namespace(machine), (lab, machine))
        assert owner == (lab, machine)
