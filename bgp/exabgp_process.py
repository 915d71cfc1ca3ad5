"""The speaker with a real wire: an ExaBGP child under supervision, and the tables that it fills."""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import assert_never

import structlog

from bgp import exabgp_codec as codec
from bgp import exabgp_events, path_report, report, waiting
from bgp.child_process import Child
from bgp.exabgp_updates import TITLE, CloseSession, Pieces, Updates
from bgp.moved import Moved
from bgp.path_report import AdvertisedReport, RouteReport
from bgp.policy_report import TermReport
from bgp.report import PeerReport
from bgp.session_log import SessionLog
from bgp.speaker import BestPath, Speaker
from bgp.speaker_words import (
    Configured,
    Effect,
    Enabled,
    Event,
    ManyPrefixes,
    NextHops,
    PathsRefused,
    RefreshAsked,
    ResetAsked,
    RoutesChanged,
    SessionDown,
    SessionUp,
    SpeakerSettings,
    Tick,
    WireConfigured,
    WireLost,
    WireStarted,
    identity,
    parted,
    reachable,
)
from bgp.supervision import Respawns
from bgp.types import (
    Announce,
    AnnounceEndOfRib,
    Heard,
    HoldSessions,
    IPAddress,
    IPNetwork,
    MessagesCounted,
    Refresh,
    Teardown,
    UpdateFaulty,
    Withdraw,
)
from bgp.wall_clock import WallClock

COUNTING = 0.5
"""Seconds that counting messages may take; a child that works answers within milliseconds."""

COUNTED = 0
"""The number of a question that only asks for counts; those whether the child lives begin with 1."""

log = structlog.get_logger()


class BgpService:
    """BGP for one node; what the agent holds. Everything but `run` and `stop` returns at once.

    Attributes:
        problem: what is wrong with BGP as a whole, in one sentence; None while nothing is.
        child_pid: the process that holds the sessions; None while there is none.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[], None],
        on_news: Callable[[], None] = lambda: None,
        python: str = sys.executable,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        """Take what is needed to start the child.

        Args:
            on_change: called in the loop's thread after best paths or sessions have changed, once for many changes.
            on_news: called there after anything has changed that people may see.
            python: the interpreter of the child.
            wrapper: put before the child's command, as ("ip", "netns", "exec", "blue").
        """
        self.problem: str | None = None
        self.child_pid: int | None = None
        self._respawns = Respawns()
        self._on_change = on_change
        self._on_news = on_news
        self._counted = asyncio.Event()
        self._command = (*wrapper, python, "-P", "-m", "bgp.exabgp_start")
        self._speaker: Speaker | None = None
        self._wall = WallClock(_now)
        self._child: Child | None = None
        self._child_is_for: tuple[object, ...] = ()
        self._wanted = asyncio.Event()
        self._change_due = False
        self._stopped = self._settled = False
        self._timer: asyncio.TimerHandle | None = None
        self._log = SessionLog()
        self._moved = Moved()
        self._asked_about: frozenset[IPAddress] = frozenset()

    # --- what the agent asks

    def configure(self, settings: SpeakerSettings) -> None:
        """Hold these sessions and announce these prefixes from now on; cheap when nothing has changed."""
        if self._speaker is None:
            self._speaker = Speaker(settings, _now())
            self._changed()
        elif self._speaker.settings != settings:
            self._feed(Configured(settings))
            self._moved.note_all()  # the peers may have other names
            self._changed()
        if reachable(settings):
            self._wanted.set()
        else:
            self._wanted.clear()
            self.problem = None
        self._review(settings)

    def tell(self, event: NextHops | Enabled | ResetAsked | RefreshAsked) -> None:
        """Pass on what people want of a session, or what the kernel knows of next hops."""
        self._feed(event)
        if not isinstance(event, NextHops):  # what comes of those is said by the routes that move
            self._changed()

    def next_hops(self) -> frozenset[IPAddress]:
        """Return the next hops that `NextHops` should judge; `on_change` tells of new ones."""
        return self._asked_about

    def _review(self, settings: SpeakerSettings) -> None:
        """End a child that is not wanted any more, or not as it is; `run` starts the one that is."""
        if self._child and (not reachable(settings) or self._child_is_for != identity(settings)):
            self._child.close("settings changed")

    def best_paths(self) -> Mapping[IPNetwork, BestPath]:
        """Return the Loc-RIB, and of prefixes none of whose next hops can be reached what would be the best path."""
        return {**self._speaker.loc_rib.waiting, **self._speaker.loc_rib.best} if self._speaker else {}

    def changes(self) -> Mapping[IPNetwork, BestPath | None] | None:
        """Return what `best_paths` says otherwise than when this was asked last, None for prefixes that have no path.

        None where all may have changed: at the start, with new settings, and where more has than is worth counting.
        """
        return self._moved.taken(self._speaker.loc_rib) if self._speaker else None

    def peer_name(self, best: BestPath) -> str:
        """Name who told us the path, as `172.31.2.11 (b1)`."""
        session = self._speaker.sessions.get(best.path.peer) if self._speaker else None
        return f"{best.path.peer} ({session.settings.name})" if session else str(best.path.peer)

    def converged(self) -> bool:
        """Say whether absence of a path means something by now; before the first settings it does not."""
        return self._speaker is not None and self._speaker.converged(_now())

    def selecting(self) -> bool:
        """Say whether best paths are worth acting upon by now; before the first settings they are not."""
        return self._speaker is not None and self._speaker.selecting(_now())

    def arrived(self, since: float) -> bool:
        """Say whether the paths of all peers are known, as far as they will be; waited for since then or the start."""
        speaker = self._speaker
        if self.problem is not None or speaker is None:
            return False
        return waiting.arrived(speaker.sessions.values(), max(since, speaker.started), _now())

    # --- what felixctl shows

    @property
    def respawns(self) -> int:
        """How often that process had to be started again."""
        return self._respawns.count

    @property
    def settings(self) -> SpeakerSettings | None:
        """What the speaker was told to do last."""
        return self._speaker.settings if self._speaker else None

    def peers(self) -> tuple[PeerReport, ...]:
        """Report every session."""
        return report.peers(self._speaker, self._wall.read()) if self._speaker else ()

    def sessions(self) -> tuple[PeerReport, ...]:
        """Report every session without counts of paths, which costs the same however many there are."""
        clock = self._wall.read()
        return report.peers(self._speaker, clock, counted=False) if self._speaker else ()

    async def count_messages(self) -> None:
        """Have the messages of all sessions counted now and not at the next ping; a stuck child is not waited for."""
        if self._child:
            self._counted.clear()
            self._child.write(codec.ping(COUNTED, counters=True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COUNTING):
                    await self._counted.wait()

    def policies(self, peer: IPAddress) -> tuple[tuple[TermReport, ...], tuple[TermReport, ...]]:
        """Report the import and export policy of one session, term by term."""
        return report.policies(self._speaker, peer) if self._speaker else ((), ())

    def routes(self, peer: IPAddress | None = None, prefix: IPNetwork | None = None) -> tuple[RouteReport, ...]:
        """Report every path that was received, or those of one peer, or to one prefix; refused ones with the reason."""
        return path_report.routes(self._speaker, peer, prefix) if self._speaker else ()

    def advertised(self, peer: IPAddress, prefix: IPNetwork | None = None) -> tuple[AdvertisedReport, ...]:
        """Report what one peer was told since its session is up."""
        return path_report.advertised(self._speaker, peer, prefix) if self._speaker else ()

    def withheld(self, peer: IPAddress, prefix: IPNetwork | None = None) -> tuple[AdvertisedReport, ...]:
        """Report what one peer is not told although it could be, and why."""
        return path_report.withheld(self._speaker, peer, prefix) if self._speaker else ()

    # --- the child's life

    async def run(self) -> None:
        """Keep a child alive while there are peers, for ever."""
        while True:
            await self._wanted.wait()
            if self._stopped:
                return
            started = _now()
            reason, on_purpose = await self._live()
            pause = self._respawns.after(_now() - started, settled=self._settled, on_purpose=on_purpose)
            log.warning("bgp.child.exited", reason=reason, respawn_in=round(pause, 1))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that nodes do not go in step

    async def stop(self) -> None:
        """End the child, if it runs; peers keep our paths for the restart time, as after a crash; not if we leave."""
        self._stopped = True
        self._wanted.set()
        if self._timer:
            self._timer.cancel()
        if self._child:
            await self._child.end("the agent stops")

    async def _live(self) -> tuple[str, bool]:
        """Start a child, follow it to its end; return why it ended, and whether we wanted it to."""
        assert self._speaker is not None  # noqa: S101 - `_wanted` is set after it
        settings = self._speaker.settings
        self._child_is_for = identity(settings)
        try:
            child = self._child = await Child.start(self._command, codec.environment(settings))
        except OSError as error:
            self.problem = f"the BGP process {self._command[0]} cannot be started: {error.strerror}"
            return self.problem, False
        self.child_pid = child.pid
        log.info("bgp.child.started", pid=child.pid)
        self._feed(WireStarted())
        self._review(self._speaker.settings)
        pings = asyncio.create_task(self._ping(child), name="bgp pings")
        listening = asyncio.create_task(self._listen(child), name="bgp listening")
        try:
            await asyncio.shield(listening)  # whoever stops us has to hear that we have taken leave
            reason = await child.end()
        except asyncio.CancelledError:
            self._take_leave()
            await child.end("the agent stops")
            raise
        finally:
            pings.cancel()
            listening.cancel()
            self._child = self.child_pid = None
        if not child.on_purpose and self.problem is None:
            self.problem = f"the BGP process ended: {reason}; it is started again"
        self._settled = waiting.settled(self._speaker.sessions.values())
        self._feed(WireLost(f"our BGP process ended: {reason}"))
        self._changed()
        return reason, child.on_purpose

    def _take_leave(self) -> None:
        """Close our sessions with a Cease if we have left, so that no peer waits for us (RFC 4724 section 4).

        The child does so at the end of its input, if not before.
        """
        if self._speaker and self._speaker.settings.leaving:
            self._hear(Configured(parted(self._speaker.settings)))

    async def _ping(self, child: Child) -> None:
        """Ask again and again; kill a child of which nothing has been heard for too many questions."""
        while True:
            hold_times = waiting.hold_times(self._speaker.sessions.values()) if self._speaker else []
            await asyncio.sleep(child.questions.pause(hold_times))
            now = _now()
            if not child.questions.due(hold_times, now):
                continue
            if child.questions.stuck():
                child.kill(f"it was asked {child.questions.unanswered - 1} times, and nothing was heard of it")
            child.write(codec.ping(child.questions.unanswered, counters=child.questions.counting(now)))

    async def _listen(self, child: Child) -> None:
        """Understand what a child writes until it ends, and act upon it."""
        pieces, updates = Pieces(), Updates()
        async for data in child.output():
            # Anything shows that it lives; an answer may be far behind what came before it.
            child.questions.unanswered = 0
            try:
                for piece in pieces.cut(data):
                    heard = updates.heard(piece) if piece.line.startswith(TITLE) else exabgp_events.heard(piece.line)
                    for event in heard:
                        self._take(child, event)
            except exabgp_events.Rubbish as rubbish:
                child.kill(str(rubbish))
            self._follow_up()

    def _take(self, child: Child, event: Heard | exabgp_events.Answer | CloseSession) -> None:
        match event:
            case exabgp_events.Configured(None):
                self.problem = None
                self._hear(WireConfigured())
                self._changed()
            case exabgp_events.Configured(error):
                self.problem = f"ExaBGP refused its configuration: {error}"
                child.kill(self.problem)
            case exabgp_events.CommandRefused():
                child.kill("ExaBGP did not understand a command")
            case exabgp_events.Alive(number):
                if number == COUNTED:
                    asyncio.get_running_loop().call_soon(self._counted.set)  # the counts come with it, in the same line
            case exabgp_events.CannotListen():
                self.problem = event.sentence
                self._changed()
            case CloseSession():
                child.write(codec.close(event.peer, event.code, event.subcode, event.data, event.session))
            case UpdateFaulty():
                self._log.malformed(event)
                self._hear(event)
            case _:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        """Give the speaker an event, and do what it says; whoever calls sees to what follows."""
        if self._speaker:
            if not (isinstance(event, MessagesCounted) and report.known(self._speaker, event)):
                self._on_news()
            for effect in self._speaker.on(event, now=_now()):
                self._do(effect)

    def _feed(self, event: Event) -> None:
        self._hear(event)
        self._follow_up()

    def _follow_up(self) -> None:
        """See to what follows from all that was heard: next hops to be judged, and when the next timer is due."""
        # Once for many events: where each brings a next hop of its own, asking after each would cost their square.
        next_hops = self._speaker.next_hops if self._speaker else self._asked_about
        if next_hops is not self._asked_about and next_hops != self._asked_about:
            self._asked_about = next_hops
            self._changed()
        self._arm()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Announce() | Withdraw() | AnnounceEndOfRib() | HoldSessions() | Teardown() | Refresh():
                if self._child and self._speaker:
                    self._child.write(*codec.lines(effect, self._speaker.in_force))
            case RoutesChanged(prefixes):
                self._moved.note(prefixes)
                self._changed()
            case SessionUp() | SessionDown():
                self._log.note(effect)
                self._changed()
            case PathsRefused() | ManyPrefixes():
                self._log.note(effect)
            case _:
                assert_never(effect)

    # --- the loop's clock

    def _arm(self) -> None:
        """Be woken when the speaker's next timer is due."""
        if self._timer:
            self._timer.cancel()
        due = self._speaker.deadline() if self._speaker else None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, due - _now()), self._feed, Tick()) if due is not None else None

    def _changed(self) -> None:
        """Tell the agent, once for everything that happens in this turn of the loop."""
        if not self._change_due:
            self._change_due = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._change_due = False
        self._on_change()


def _now() -> float:
    return time.monotonic()
