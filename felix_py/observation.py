"""What the outside may know of the agent: turns as metrics and health, and facts that are counted when asked for."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from bgp.exabgp_process import BgpService
from bgp.types import SessionState
from felix_py.agent import Agent
from felix_py.allocations import Allocations
from felix_py.health import Health
from felix_py.kernel import filter_counters
from felix_py.kernel.conntrack import Conntrack
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.knowledge import Done
from felix_py.metrics import Metrics, PeerFacts, peer_facts
from felix_py.model import BlockAffinity, IPPool, lies_in
from vxlan.tunnel import Vxlan

MARGIN = 30.0
"""Seconds that a turn may take beyond the time at which it was due."""


class Observation:
    """Looks on at the turns of an agent (`seams.Onlooker`), and answers `metrics.Facts`.

    Attributes:
        on_turn: called after each turn.
    """

    def __init__(
        self,
        metrics: Metrics,
        agent: Agent,
        speaker: BgpService,
        store: Allocations,
        conntrack: Conntrack,
        programs: GuardPrograms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._agent = agent
        self._speaker = speaker
        self._store = store
        self._conntrack = conntrack
        self._programs = programs
        self._clock = clock
        self.on_turn: Callable[[], None] = lambda: None
        self._states: Mapping[str, int] = {}
        self._purged = 0
        self.health = Health(
            clock(),
            {"loop": agent.config.resync_seconds + MARGIN},
            {"inSync": self._not_in_sync, "firstApply": self._not_applied, "bgp": self._not_peered},
        )
        metrics.expose(self)

    # --- what the agent tells

    def turned(self, done: Done, repairs: Counter[str], states: Mapping[str, int], refusal: str | None) -> None:
        """Take note of a turn that went well; see `seams.Onlooker`."""
        now, metrics, routes = self._clock(), self._metrics, done.report.routes
        self._states = states
        self.health.beat("loop", now)
        self.health.well("kernel", now)
        # The kernel takes nothing at all; one route that it refuses is that route's trouble.
        if refusal is not None and not states.get("installed"):
            self.health.fail("routes", refusal, now)
        else:
            self.health.well("routes", now)
        metrics.applied(done.apply_seconds)
        if done.resync_cause is not None:
            metrics.resynced(done.resync_seconds)
        for _ in range(done.news.causes["events lost"]):
            metrics.events_lost()
        for cause, count in repairs.items():
            metrics.repaired(cause, count)
        for batch in routes.batches:
            deleted = batch.new.count(None)
            metrics.wrote("put", len(batch.new) - deleted)
            metrics.wrote("delete", deleted)
        for hold in routes.refused.values():
            if hold.refusal is not None:
                metrics.refused(hold.refusal.code)
        purged, self._purged = self._purged, self._conntrack.entries_removed
        metrics.conntrack_purged(self._purged - purged)
        self.on_turn()

    def failed(self, reason: str) -> None:
        """Take note of a turn in which the kernel could not be read or written."""
        now = self._clock()
        self.health.beat("loop", now)
        self.health.fail("kernel", reason, now)
        self.on_turn()

    # --- what is counted when asked

    def routes(self) -> Mapping[str, int]:
        """Return how many routes are in each state."""
        return {state: count for state, count in self._states.items() if state != "contested"}

    def contested(self) -> int:
        """Return how many routes others keep changing."""
        return self._states.get("contested", 0)

    def peers(self) -> Iterable[PeerFacts]:
        """Return every configured session."""
        return map(peer_facts, self._speaker.peers())

    def addresses(self) -> Mapping[tuple[str, str], int]:
        """Return how many of this node's addresses are used and free, by pool."""
        counts: Counter[tuple[str, str]] = Counter()
        pools = tuple(self._agent.cluster.of(IPPool))
        for block in map(self._store.block, self._agent.blocks()):
            pool = next((each.name for each in pools if lies_in(block.cidr, each.cidr)), "none")
            counts[pool, "used"] += block.used
            counts[pool, "free"] += block.size - block.used
        return counts

    def config_stale(self) -> bool:
        """Say whether a resource is refused."""
        return bool(self._agent.faults)

    def filtered(self) -> Mapping[str, int]:
        """Return the packets that the packet filter has counted, and the programs that stand in for a part of it."""
        if not self._agent.config.netfilter:
            return {}
        return {**(self._programs.counters() if self._agent.guarded else {}), **filter_counters.read()}

    def blocks(self) -> Mapping[tuple[str, str], int]:
        """Return how many blocks of each pool some node has claimed, and how many nobody has."""
        blocks = [each.cidr for each in self._agent.cluster.of(BlockAffinity)]
        counts: dict[tuple[str, str], int] = {}
        for pool in self._agent.cluster.of(IPPool):
            claimed = sum(lies_in(each, pool.cidr) for each in blocks)
            counts[pool.name, "claimed"] = claimed
            counts[pool.name, "free"] = max(0, (1 << max(0, pool.block_size - pool.cidr.prefixlen)) - claimed)
        return counts

    def tunnels(self) -> Mapping[str, int]:
        """Return how many other nodes each tunnel leads to."""
        wanted = self._agent.picture.desired.state.tunnels.values()
        return {
            each.name: len(each.forwarding if isinstance(each, Vxlan) else {node for _, node in each.routes})
            for each in wanted
        }

    def checks(self) -> Mapping[tuple[str, str], bool]:
        """Return whether each check passes now."""
        verdicts = {"live": self.health.live(self._clock()), "ready": self.health.ready()}
        return {(probe, each.name): each.reason is None for probe, found in verdicts.items() for each in found.checks}

    # --- why the node is not ready

    def _not_in_sync(self) -> str | None:
        return None if self._agent.cluster.in_sync else "the datastore was not read to its end"

    def _not_applied(self) -> str | None:
        return None if self._agent.turns else "nothing was written to the kernel yet"

    def _not_peered(self) -> str | None:
        """Say that no session stands; one that is down among several takes no node out of service."""
        if self._speaker.problem:
            return self._speaker.problem
        states = [peer.state for peer in self._speaker.peers()]
        if states and SessionState.ESTABLISHED not in states:
            return f"none of {len(states)} sessions is established; see `felixctl bgp peers`"
        return None
