"""What a turn means for metrics and health."""

from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

from felix_py.calc.desired import Desired
from felix_py.config import Config
from felix_py.health import Verdict
from felix_py.kernel.holds import Hold, Waiting
from felix_py.kernel.kernel import News, Report
from felix_py.kernel.objects import KernelState
from felix_py.kernel.outcome import Batch, Outcome
from felix_py.kernel.wire import Refusal
from felix_py.knowledge import Done
from felix_py.metrics import Metrics
from felix_py.model import BlockAffinity, IPPool, NodeName
from felix_py.observation import Observation
from felix_py.picture import Picture
from ipip.tunnel import Tunnel


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def looking(clock: Clock, peers: tuple[str, ...] = ()) -> tuple[Observation, Metrics, Any]:
    metrics = Metrics()
    agent = SimpleNamespace(
        config=Config(NodeName("a1")),
        cluster=SimpleNamespace(in_sync=True, of=lambda _: ()),
        turns=1,
        faults=(),
        blocks=tuple,
        guarded=True,
        picture=Picture(),
    )
    speaker = SimpleNamespace(problem=None, peers=lambda: [SimpleNamespace(state=state) for state in peers])
    conntrack = SimpleNamespace(entries_removed=0)
    store = SimpleNamespace(block=None)
    programs = SimpleNamespace(counters=lambda: {"pod-spoofed": 7})
    observation = Observation(metrics, agent, speaker, store, conntrack, programs, clock)  # type: ignore[arg-type]
    return observation, metrics, agent


def done(outcome: Outcome | None = None, **more: Any) -> Done:
    return Done(
        Desired(), News(**more.pop("news", {})), report=Report(routes=Outcome() if outcome is None else outcome), **more
    )


def value(metrics: Metrics, line: str) -> float:
    """Return the value behind a series."""
    found = [text.split()[-1] for text in metrics.text().decode().splitlines() if text.startswith(line + " ")]
    assert found, f"no series {line}"
    return float(found[0])


def test_what_the_programs_drop_is_counted_where_they_guard_pods() -> None:
    observation, metrics, agent = looking(Clock(), ())
    assert value(metrics, 'felix_netfilter_packets_total{counter="pod-spoofed"}') == 7
    agent.guarded = False
    assert "pod-spoofed" not in observation.filtered()


def test_a_turn_is_counted() -> None:
    observation, metrics, _ = looking(Clock(), ())
    outcome = Outcome(
        [Batch([b"a", b"b"], [None, b"old"], [b"new", None], ["route deleted", None])],
        refused={b"c": Hold(Waiting.RETRY, 1.0, Refusal(1, "Operation not permitted"))},
    )
    turn = done(outcome, resync_cause="start", resync_seconds=0.02, news={"causes": Counter({"events lost": 2})})
    observation.turned(turn, Counter({"route deleted": 1}), {"installed": 1, "missing": 1, "contested": 3}, None)
    assert value(metrics, 'felix_route_writes_total{kind="put"}') == 1
    assert value(metrics, 'felix_route_writes_total{kind="delete"}') == 1
    assert value(metrics, 'felix_route_repairs_total{cause="route deleted"}') == 1
    assert value(metrics, 'felix_netlink_refusals_total{errno="EPERM"}') == 1
    assert value(metrics, "felix_resync_seconds_count") == 1
    assert value(metrics, "felix_events_lost_total") == 2
    assert value(metrics, 'felix_routes{state="installed"}') == 1
    assert value(metrics, "felix_routes_contested") == 3


def reasons(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.reason for check in verdict.checks if check.reason is not None}


def test_a_kernel_that_stays_broken_makes_the_agent_not_live_and_recovery_makes_it_live() -> None:
    clock = Clock()
    observation, _, _ = looking(clock)
    observation.failed("reading events failed: Bad file descriptor")
    clock.now = 20.0
    assert reasons(observation.health.live(clock())) == {}, "most faults heal by then"
    observation.failed("reading events failed: Bad file descriptor")
    clock.now = 31.0
    assert reasons(observation.health.live(clock())) == {
        "kernel": "reading events failed: Bad file descriptor, for 31 s"
    }
    observation.turned(done(), Counter(), {"installed": 7}, None)
    assert reasons(observation.health.live(clock())) == {}


def test_a_kernel_that_takes_nothing_at_all_makes_the_agent_not_live() -> None:
    clock = Clock()
    observation, _, _ = looking(clock)
    for now in (0.0, 31.0):
        clock.now = now
        observation.turned(done(), Counter(), {"installed": 0, "missing": 4}, "Operation not permitted")
    assert reasons(observation.health.live(clock())) == {"routes": "Operation not permitted, for 31 s"}


def test_one_refused_route_is_that_routes_trouble() -> None:
    clock = Clock()
    observation, _, _ = looking(clock)
    for now in (0.0, 31.0):
        clock.now = now
        observation.turned(done(), Counter(), {"installed": 3, "missing": 1}, "Nexthop has invalid gateway")
    assert reasons(observation.health.live(clock())) == {}


def test_ready_is_in_sync_applied_and_peered() -> None:
    observation, _, agent = looking(Clock(), ("Active", "Idle"))
    assert reasons(observation.health.ready()) == {"bgp": "none of 2 sessions is established; see `felixctl bgp peers`"}
    agent.turns, agent.cluster.in_sync = 0, False
    assert set(reasons(observation.health.ready())) == {"inSync", "firstApply", "bgp"}
    observation, _, _ = looking(Clock(), ("Established", "Idle"))
    assert reasons(observation.health.ready()) == {}
    observation, _, _ = looking(Clock(), ())
    assert reasons(observation.health.ready()) == {}, "a node without sessions is ready, too"


def test_every_check_of_the_probes_is_told() -> None:
    observation, _, agent = looking(Clock(), ("Active",))
    assert observation.checks() == {
        ("live", "loop"): True,
        ("ready", "inSync"): True,
        ("ready", "firstApply"): True,
        ("ready", "bgp"): False,
    }
    agent.cluster.in_sync = False
    assert observation.checks()["ready", "inSync"] is False


def test_blocks_of_a_pool_are_claimed_or_free() -> None:
    _, metrics, agent = looking(Clock())
    pool = IPPool("default", IPv4Network("10.65.0.0/24"))
    claimed = BlockAffinity("a1", NodeName("a1"), IPv4Network("10.65.0.64/26"))
    elsewhere = BlockAffinity("b1", NodeName("b1"), IPv4Network("10.66.0.0/26"))
    resources: dict[type, tuple[object, ...]] = {IPPool: (pool,), BlockAffinity: (claimed, elsewhere)}
    agent.cluster.of = lambda kind: resources.get(kind, ())
    assert value(metrics, 'felix_ipam_blocks{pool="default",state="claimed"}') == 1
    assert value(metrics, 'felix_ipam_blocks{pool="default",state="free"}') == 3


def test_a_tunnel_counts_the_nodes_that_it_leads_to() -> None:
    _, metrics, agent = looking(Clock())
    far = IPv4Address("172.31.2.11")
    routes = frozenset({(IPv4Network("10.65.2.0/26"), far), (IPv4Network("10.65.3.0/26"), far)})
    wanted = Tunnel(IPv4Address("172.31.1.11"), mtu=1480, routes=routes)
    agent.picture = Picture(Desired(KernelState(tunnels={"tunl0": wanted})))
    assert value(metrics, 'felix_tunnel_remotes{device="tunl0"}') == 1
