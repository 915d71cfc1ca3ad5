"""The loop: gather news, let the kernel's thread turn, answer whoever waits, and say what was done."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from bgp.speaker import SpeakerSettings
from bgp.types import IPAddress, IPNetwork
from bgp.wall_clock import WallClock
from felix_py.awaited_pods import AwaitedPods
from felix_py.calc import sessions
from felix_py.calc.hearsay import Hearsay, hearsay
from felix_py.config import Config
from felix_py.datastore.api import Datastore
from felix_py.kernel.engine import Intention
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, Step
from felix_py.kernel_thread import KernelThread, Told, asked, turned
from felix_py.knowledge import NO_NEXT_HOPS, Admitted, Done, Knowledge
from felix_py.model import Key, NodeName, WorkloadEndpoint
from felix_py.picture import Picture
from felix_py.rests import Rests
from felix_py.seams import Onlooker, RouteSpeaker
from felix_py.state import Absent, ClusterState, Event, Present
from felix_py.telling import tell_of_next_hops, unguarded
from felix_py.turn import Turns

RETRY_FIRST, RETRY_LAST = 0.1, 10.0
"""Seconds before a kernel that could not be read is read again: first, and after doubling at most."""

CONVERGED_AGAIN = 1.0
"""Seconds until a turn asks again whether BGP has converged; BGP wakes us earlier when it has."""

KERNEL_PATIENCE = 60.0
"""Seconds that the kernel may be unreadable before the agent ends: a new one may fare better than a lame one."""

log = structlog.get_logger()

Result = TypeVar("Result")


class Agent:
    """One node's agent. Everything that happens to it wakes it; everything it does happens in `turn`.

    Attributes:
        onlooker: told of each turn; None where nobody looks.
        rearm: called after each turn, when the kernel's events have been taken: whoever watches for more goes on.
        adjust: makes of BGP's settings by the resources what people want of them for now.
        guarded: our programs guard pods' interfaces, where there is a packet filter.
    """

    def __init__(
        self,
        config: Config,
        kernel: Kernel,
        datastore: Datastore,
        speaker: RouteSpeaker,
        tunnel_address: Callable[[IPNetwork], IPAddress | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.cluster = ClusterState()
        self.picture = Picture()
        self.repairs: Counter[str] = Counter()
        self.started_at = datetime.now(UTC)
        self.turns = 0
        self.onlooker: Onlooker | None = None
        self.rearm: Callable[[], None] = _nothing
        self.adjust: Callable[[SpeakerSettings], SpeakerSettings] = _unchanged
        self.guarded = False
        self._kernel = KernelThread(Turns(kernel, config.node_name, clock))
        self._datastore = datastore
        self._speaker = speaker
        self._tunnel_address = tunnel_address
        self._clock, self._wall = clock, WallClock(clock)
        self._news: list[Event] = []
        self._wake = asyncio.Event()
        self._has_news = self._gathers = False
        self._rests = Rests(config.node_name, clock)
        self._awaited = AwaitedPods()
        self._knowledge: Knowledge | None = None
        self._at_work: Knowledge | None = None  # the turn
        self._hearsay = Hearsay()
        self._next_hops = NO_NEXT_HOPS  # as BGP was told of them
        self._converged, self._resynced, self._retry = False, clock(), RETRY_FIRST
        self._broken_since: float | None = None
        self._due_at: float | None = None

    # --- what happens to us

    def heard(self) -> None:
        """Ask for a turn because there are events of the kernel, unless it is only of pods that they tell."""
        self._wake.set()

    def stir(self) -> None:
        """Ask for a turn because something happened in the kernel; the turn finds out what."""
        self._rests.calm.disturb()
        self._wake.set()

    def bgp_changed(self) -> None:
        """Ask for a turn because best paths or sessions have changed."""
        self._knowledge, self._has_news = None, True
        self.stir()

    def tell(self, *news: Event) -> None:
        """Add news of the cluster and ask for a turn."""
        self._news.extend(news)
        self._has_news = self._gathers = True
        self.stir()

    def expect_endpoint(self) -> None:
        """Know that a pod is being attached: no turn need be made for what the kernel tells of it meanwhile."""
        self._rests.pods_move()

    def admit(self, pods: Sequence[tuple[WorkloadEndpoint, int]]) -> list[Admitted | None]:
        """Guard pods, each with the index of its new interface; None where that takes a turn. For any thread."""
        return self._kernel.admit(pods)

    def attach(self, pods: Sequence[Admitted]) -> list[bool]:
        """Route pods that are guarded; False where that takes a turn. For any thread; of each the loop is told next."""
        return self._kernel.attach(pods)

    def covers(self, endpoint: WorkloadEndpoint) -> bool:
        """Say whether others know of a pod's addresses by this node's blocks; for any thread."""
        return self._rests.calm.covers(endpoint, self.cluster)

    def attached(self, endpoint: WorkloadEndpoint) -> None:
        """Know of a pod that `attach` has guarded and routed."""
        self._rests.calm.came(endpoint, self.cluster)
        self._news.append(Present(Key("WorkloadEndpoint", endpoint.name), endpoint))
        self._has_news = self._gathers = True
        self.heard()  # it needs no turn
        self._kernel.tell(endpoint)

    async def put_endpoint(self, endpoint: WorkloadEndpoint) -> None:
        """Guard and route a pod; return when its addresses are in the kernel's table.

        Raises:
            KernelRefused: with the kernel's reason, or when it took too long.
        """
        self.tell(Present(Key("WorkloadEndpoint", endpoint.name), endpoint))
        self._rests.hurry.set()  # somebody waits for a pod: no burst is gathered
        await self._awaited.routed(endpoint)

    async def remove_endpoint(self, name: str) -> None:
        """Forget a pod; its routes go with the next turn."""
        self._rests.pods_move()
        self.tell(Absent(Key("WorkloadEndpoint", name)))

    def configure_bgp(self) -> None:
        """Have BGP be as the resources and people want it; nothing where it is off, or they are not known yet."""
        if not self.config.bgp:
            return
        settings = sessions.settings(self.cluster, self.config.node_name) if self.cluster.in_sync else None
        if settings is not None:
            self._speaker.configure(self.adjust(settings))

    # --- what others may ask

    @property
    def node_name(self) -> NodeName:
        """The name of this machine's Node resource."""
        return self.config.node_name

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the resources as they are now, one sentence each."""
        return self._datastore.faults

    def blocks(self) -> tuple[IPNetwork, ...]:
        """Return this node's blocks, IPv4 and the lowest first."""
        return sessions.own_blocks(self.cluster, self.config.node_name)

    def announced(self) -> Collection[IPNetwork]:
        """Return the prefixes that other nodes announce, as far as BGP has told them."""
        return self._speaker.best_paths().keys()

    def pod_mtu(self) -> int:
        """Return the bytes that a pod's packet may have on its way to any other node."""
        return self.picture.desired.pod_mtu.value

    def not_ready(self) -> str | None:
        """Say in one sentence why no pod can be attached now; None when one can."""
        return f"node {self.node_name} is not in sync yet; see `felixctl status`" if self.turns == 0 else None

    def limited(self) -> str | None:
        """Say in one sentence what pods of this node may lack now; None when the kernel holds all that it should."""
        return next(iter(self.picture.problems), None)

    async def planned(self, describe: Callable[[tuple[Step, ...], tuple[Intention, ...], Turns], Result]) -> Result:
        """Return what a turn would do now, described, without doing it.

        Raises:
            KernelRefused: when the kernel could not be read.
        """
        knowledge = self._what_we_know()
        return await self.ask(lambda turns: describe(*turns.plan(self._kernel.at_last(knowledge)), turns))

    async def ask(self, question: Callable[[Turns], Result]) -> Result:
        """Run a question in the kernel's thread, where nothing changes meanwhile."""
        return await self._kernel.ask(question)

    def moment(self, at: float | None) -> datetime | None:
        """Return the time of day of a moment on the loop's clock."""
        return None if at is None else self._wall.at(at)

    # --- what we do

    async def follow_datastore(self) -> None:
        """Hand the datastore's news to the loop for ever."""
        async for news in self._datastore.events():
            self.tell(*news)

    async def run(self) -> None:
        """Turn whenever something happened, and every `resync_seconds` although nothing did."""
        pause = self.config.resync_seconds
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            await self._gather()
            self._wake.clear()
            self._rests.hurry.clear()
            pause = await self.turn()

    async def _gather(self) -> None:
        """Wait for more of a burst, and until the last turn's rest is over; not while somebody waits for a pod."""
        # Resources come in bursts: an editor writes one file after the other. BGP's news are gathered where they come.
        settle = self.config.settle_milliseconds / 1000 if self._gathers else 0.0
        # The last turn did not reach what a pod waits for, in a flood of events.
        await self._rests.rest(settle, short=bool(self._awaited))
        due = self._due_at is not None and self._due_at <= self._clock()
        if self._converged and not due and not self._awaited:
            await self._rests.wait_for_pods(self._kernel.calm)

    async def turn(self) -> float:
        """Make the kernel hold what it should; return the seconds until the next turn is due anyway.

        Raises:
            KernelRefused: when the kernel could not be read for longer than KERNEL_PATIENCE.
        """
        self._rests.calm.begin()
        has_news = self._take_news()
        if not self.cluster.in_sync:
            return self.config.resync_seconds
        done, told = await self._at_the_kernel(hold=True)
        busy = told.busy
        if done.held:
            self._take_news()  # of pods that were attached meanwhile: their routes stand already
            # BGP chooses among the next hops that can be reached now before anything is written
            self._knowledge = None
            done, told = await self._at_the_kernel(hold=False)
            busy += told.busy
        self._rests.pace.worked(busy, self._clock(), news=has_news)
        if done.broken is not None:
            return self._back_off(done.broken)
        self._awaited.answer(told.standings, unguarded(done.report))
        self.turns += 1
        return self._pause()

    async def _at_the_kernel(self, *, hold: bool) -> tuple[Done, Told]:
        resync = self._clock() - self._resynced >= self.config.resync_seconds
        knowledge = self._what_we_know()
        self._converged = knowledge.converged
        keys = self._awaited.routes()
        known = self.picture.problems
        loop, self._at_work = asyncio.get_running_loop(), knowledge

        def further() -> Hearsay | None:
            return asked(loop, self._goes_on)

        done, told = await self._kernel.turn(
            lambda turns: turned(turns, self._kernel.at_last(knowledge), keys, known, further, resync=resync, hold=hold)
        )
        self.rearm()
        self.repairs += told.repairs
        if done.broken is None:
            self._note(done, told)
            if done.next_hops is not self._next_hops:
                tell_of_next_hops(self._next_hops, done.next_hops)
                self._next_hops = done.next_hops
                self._speaker.tell(done.next_hops)
        return done, told

    def _take_news(self) -> bool:
        """Take in what is new of the cluster, and configure BGP by it; return whether there was any news of our own."""
        news, self._news = self._news, []
        has_news, self._has_news = self._has_news, False
        self._gathers = False
        if not news:
            return has_news
        was_in_sync = self.cluster.in_sync
        self.cluster = self.cluster.after_all(news)
        self._kernel.heard(news)
        if self.cluster.in_sync and not was_in_sync:
            log.info("agent.in_sync", resources=len(self.cluster.resources))
        if self.cluster.in_sync:
            self._knowledge = None
            self.configure_bgp()
        return has_news

    def _what_we_know(self) -> Knowledge:
        """Return what the wish depends on; the same object until something of it changes."""
        # Where BGP is off there is nothing to wait for.
        off = not self.config.bgp
        converged, selecting = off or self._speaker.converged(), off or self._speaker.selecting()
        if self._knowledge is None or (self._knowledge.converged, self._knowledge.selecting) != (converged, selecting):
            blocks = sessions.tunnel_blocks(self.cluster, self.config.node_name)
            self._knowledge = Knowledge(
                self.cluster,
                self._listen(),
                converged,
                tuple(filter(None, map(self._tunnel_address, blocks))),
                self.config.next_hop_objects,
                self.config.netfilter,
                self._speaker.next_hops(),
                selecting,
                off,
                self.guarded,
            )
        return self._knowledge

    def _goes_on(self) -> Hearsay | None:
        """Return what BGP says by now, for the turn that is at work; None where that, and only that, is not new."""
        before = self._at_work
        off = not self.config.bgp or self._knowledge is not None or self._news or self._awaited
        if before is None or off or self._speaker.next_hops() != before.next_hops:
            return None
        if (self._speaker.converged(), self._speaker.selecting()) != (before.converged, before.selecting):
            return None
        knowledge = self._what_we_know()
        if knowledge.learned is before.learned or knowledge != replace(before, learned=knowledge.learned):
            return None
        self._at_work = knowledge
        return knowledge.learned

    def _listen(self) -> Hearsay:
        """Return what BGP says."""
        changes, name = self._speaker.changes(), self._speaker.peer_name
        if changes is None:
            self._hearsay = hearsay(self._speaker.best_paths(), name)
        else:
            self._hearsay = self._hearsay.after(changes, name)
        return self._hearsay

    def _pause(self) -> float:
        """Return the seconds until something is due although nothing happens."""
        now = self._clock()
        pauses = [self.config.resync_seconds - (now - self._resynced)]
        if not self._converged:
            pauses.append(CONVERGED_AGAIN)
        if self._due_at is not None:
            pauses.append(self._due_at - now)
        return max(0.0, min(pauses))

    def _back_off(self, reason: str) -> float:
        """Say that the kernel cannot be read, and wait; longer each time, and not for ever."""
        now = self._clock()
        if self._broken_since is None:
            self._broken_since = now
            log.warning("kernel.broken", reason=reason)
        self.picture = replace(self.picture, problems=(reason,))
        if self.onlooker is not None:
            self.onlooker.failed(reason)
        if now - self._broken_since > KERNEL_PATIENCE:
            raise KernelRefused(
                f"{reason}; this has lasted {KERNEL_PATIENCE:.0f} s, so the agent ends, to be started anew"
            )
        pause, self._retry = self._retry, min(self._retry * 2, RETRY_LAST)
        return pause

    # --- what we say about it

    def _note(self, done: Done, told: Told) -> None:
        if self._broken_since is not None:
            log.info("kernel.recovered", seconds=round(self._clock() - self._broken_since, 3))
            self._broken_since, self._retry = None, RETRY_FIRST
        if done.resync_cause is not None:
            self._resynced = self._clock()
        self._due_at = done.next_due
        self.picture = told.picture
        if self.onlooker is not None:
            self.onlooker.turned(done, told.repairs, told.states, told.refusal)


def _nothing() -> None:
    """Do nothing."""


def _unchanged(settings: SpeakerSettings) -> SpeakerSettings:
    """Want nothing else."""
    return settings
