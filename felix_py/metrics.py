"""Metrics in Prometheus' text format: what the agent counts as it goes, and what is read off it when somebody asks."""

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bgp.report import PeerReport
from bgp.types import SessionState
from felix_py import __version__

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
"""Of `Metrics.text`, the form that every Prometheus reads."""

TURN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds: a turn for one pod takes milliseconds, a full table of 100,000 routes seconds."""

CNI_EVENTS = {"cni.added": "ADD", "cni.deleted": "DEL", "cni.refused": "other"}
"""Events of the log that tell how long a CNI call took, and its command where the event does not name it."""

CNI_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds: a pod's attachment takes milliseconds, and many seconds where no processor is left."""


class PeerFacts(NamedTuple):
    """One session.

    Attributes:
        peer: its address, the label.
        flaps: how often the session was lost since the agent started.
        routes: by family and kind (received, accepted, advertised).
        messages: by direction (sent, received) and kind, since the session is up.
    """

    peer: str
    state: str
    flaps: int
    routes: Mapping[tuple[str, str], int]
    messages: Mapping[tuple[str, str], int]


class Facts(Protocol):
    """What is counted when somebody asks. Called in the loop: each has to answer within a millisecond or two."""

    def routes(self) -> Mapping[str, int]:
        """Return how many routes are in each state, as `felixctl routes` names them: installed, missing, ..."""

    def contested(self) -> int:
        """Return how many routes somebody else keeps changing."""

    def peers(self) -> Iterable[PeerFacts]:
        """Return every configured session."""

    def addresses(self) -> Mapping[tuple[str, str], int]:
        """Return how many of this node's addresses are in each state, by pool and state."""

    def config_stale(self) -> bool:
        """Say whether a resource was refused, so that its last good version is in force."""

    def filtered(self) -> Mapping[str, int]:
        """Return the packets of each counter of our nftables table."""

    def blocks(self) -> Mapping[tuple[str, str], int]:
        """Return how many blocks of each pool are claimed by any node, and free, by pool and state."""

    def tunnels(self) -> Mapping[str, int]:
        """Return how many other nodes are sent encapsulated packets, by the tunnel's device."""

    def checks(self) -> Mapping[tuple[str, str], bool]:
        """Return whether each check of /livez and /readyz passes, by probe (live, ready) and check."""


def peer_facts(report: PeerReport) -> PeerFacts:
    """Take what counts from the speaker's report of one session."""
    sent = {("sent", kind): count for kind, count in report.sent.items()}
    received = {("received", kind): count for kind, count in report.received_messages.items()}
    routes = {
        (str(each.family), kind): count
        for each in report.families
        for kind, count in (
            ("received", each.received),
            ("accepted", each.accepted),
            ("advertised", each.advertised),
        )
    }
    return PeerFacts(
        str(report.settings.address),
        str(report.state),
        report.flaps,
        routes,
        sent | received,
    )


class Metrics:
    """Everything that is measured, in a registry of its own. Any thread may count."""

    def __init__(self) -> None:
        # The library's only switch for this is for the process. The times at which counters began double the answer.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = prometheus_client.CollectorRegistry()
        self._apply = prometheus_client.Histogram(
            "felix_apply_seconds", "Time of a turn's changes in the kernel", buckets=TURN_BUCKETS, registry=registry
        )
        self._resync = prometheus_client.Histogram(
            "felix_resync_seconds", "Time to read everything back", buckets=TURN_BUCKETS, registry=registry
        )
        self._cni = prometheus_client.Histogram(
            "felix_cni_seconds", "Time of a CNI call", ["command"], buckets=CNI_BUCKETS, registry=registry
        )
        self._repairs = self._counter("felix_route_repairs", "Routes put right after somebody else's change", "cause")
        self._writes = self._counter("felix_route_writes", "Routes written to the kernel", "kind")
        self._refusals = self._counter("felix_netlink_refusals", "Changes that the kernel refused", "errno")
        self._lost = self._counter("felix_events_lost", "Times that the kernel's events ran over")
        self._purged = self._counter("felix_conntrack_entries_purged", "Tracked connections forgotten with a pod")
        self._events = self._counter("felix_log_events", "Events of the log, of every level", "event")
        for kind in ("put", "delete"):
            self._writes.labels(kind)  # so that the first write is a rise from 0, which rate() sees
        prometheus_client.Gauge(
            "felix_build_info", "Always 1, for the version in its label", ["version"], registry=registry
        ).labels(__version__).set(1)
        prometheus_client.ProcessCollector(registry=registry)

    def _counter(self, name: str, text: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(name, text, labels, registry=self._registry)

    # --- what happens

    def applied(self, seconds: float) -> None:
        """Note a turn's changes in the kernel."""
        self._apply.observe(seconds)

    def resynced(self, seconds: float) -> None:
        """Note that everything was read back."""
        self._resync.observe(seconds)

    def repaired(self, cause: str, count: int = 1) -> None:
        """Note routes that had to be put right; the cause is what somebody did, as `route deleted`."""
        self._repairs.labels(cause).inc(count)

    def wrote(self, kind: Literal["put", "delete"], count: int = 1) -> None:
        """Note routes that the kernel took."""
        self._writes.labels(kind).inc(count)

    def refused(self, code: int, count: int = 1) -> None:
        """Note changes that the kernel refused; the label is the errno's name."""
        self._refusals.labels(errno.errorcode.get(code, str(code))).inc(count)

    def events_lost(self) -> None:
        """Note that the kernel had more events than it could keep for us."""
        self._lost.inc()

    def conntrack_purged(self, entries: int) -> None:
        """Note tracked connections that were forgotten."""
        self._purged.inc(entries)

    def cni(self, command: str, seconds: float) -> None:
        """Note a CNI call, refused or not."""
        self._cni.labels(command).observe(seconds)

    def logged(self, fields: Mapping[str, Any]) -> None:
        """Count an event of the log (an observer of `log.set_up`)."""
        event = fields["event"]
        self._events.labels(event).inc()
        if event in CNI_EVENTS and "milliseconds" in fields:
            self.cni(str(fields.get("command") or CNI_EVENTS[event]), fields["milliseconds"] / 1000)

    # --- what is asked

    def expose(self, facts: Facts) -> None:
        """Read these facts whenever somebody asks from now on.

        Raises:
            ValueError: when called twice.
        """
        self._registry.register(_FactsCollector(facts))

    def text(self) -> bytes:
        """Return everything in the text format, version 0.0.4."""
        return prometheus_client.generate_latest(self._registry)


class _FactsCollector(Collector):
    """Turns facts into metric families."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def describe(self) -> Iterable[Metric]:
        """Name the families, so that a second collector is refused, without asking for the facts."""
        return (_gauge("felix_routes", ""), _gauge("felix_config_stale", ""))

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each fact."""
        yield _gauge(
            "felix_routes",
            "Routes of this node",
            ["state"],
            (((state,), n) for state, n in self._facts.routes().items()),
        )
        yield _gauge(
            "felix_routes_contested", "Routes that somebody else keeps changing", (), [((), self._facts.contested())]
        )
        yield _gauge(
            "felix_ipam_addresses",
            "Addresses of this node's blocks",
            ["pool", "state"],
            self._facts.addresses().items(),
        )
        stale = "1 while a resource is refused and its last good version in force"
        yield _gauge("felix_config_stale", stale, (), [((), int(self._facts.config_stale()))])
        yield _packets(self._facts.filtered())
        yield _gauge(
            "felix_ipam_blocks",
            "Blocks of a pool, claimed by any node of the cluster or free",
            ["pool", "state"],
            self._facts.blocks().items(),
        )
        yield _gauge(
            "felix_tunnel_remotes",
            "Other nodes that are sent encapsulated packets",
            ["device"],
            (((device,), count) for device, count in self._facts.tunnels().items()),
        )
        yield _gauge(
            "felix_health_check",
            "1 where a check of /livez or /readyz passes, 0 where it fails",
            ["probe", "check"],
            ((key, int(passes)) for key, passes in self._facts.checks().items()),
        )
        yield from _sessions(tuple(self._facts.peers()))


def _packets(counters: Mapping[str, int]) -> CounterMetricFamily:
    text = "Packets, or of masqueraded connections the first ones, by the counters of the packet filter"
    family = CounterMetricFamily("felix_netfilter_packets", text, labels=["counter"])
    for name, count in counters.items():
        family.add_metric([name], count)
    return family


def _gauge(
    name: str, text: str, labels: Iterable[str] = (), values: Iterable[tuple[tuple[str, ...], float]] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=tuple(labels))
    for row, value in values:
        family.add_metric(row, value)
    return family


def _sessions(peers: tuple[PeerFacts, ...]) -> Iterator[Metric]:
    yield _gauge(
        "felix_bgp_session_state",
        "1 for the state that the session is in, 0 for the others",
        ["peer", "state"],
        (((each.peer, str(state)), int(state == each.state)) for each in peers for state in SessionState),
    )
    yield _gauge(
        "felix_bgp_routes",
        "Routes of a session",
        ["peer", "family", "kind"],
        (((each.peer, *kind), count) for each in peers for kind, count in each.routes.items()),
    )
    flaps = CounterMetricFamily(
        "felix_bgp_session_flaps", "Times that an established session was lost", labels=["peer"]
    )
    messages = CounterMetricFamily(
        "felix_bgp_messages", "BGP messages since the session is up", labels=["peer", "direction", "kind"]
    )
    for each in peers:
        flaps.add_metric([each.peer], each.flaps)
        for (direction, kind), count in each.messages.items():
            messages.add_metric([each.peer, direction, kind], count)
    yield flaps
    yield messages
