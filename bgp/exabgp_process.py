"""The speaker with a real wire: an ExaBGP child under supervision, and the tables that it fills."""

import asyncio
import random
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import assert_never

import structlog

from bgp import exabgp_codec as codec
from bgp import exabgp_events, report
from bgp.child_process import Child
from bgp.report import Clock, PeerReport, RouteReport
from bgp.speaker import (
    BestPath,
    Configured,
    Effect,
    Event,
    PathRefused,
    RouteChanged,
    SessionDown,
    SessionUp,
    Speaker,
    SpeakerSettings,
    Tick,
    WireLost,
    WireStarted,
    reachable,
)
from bgp.types import Announce, AnnounceEndOfRib, HoldSessions, IPAddress, Withdraw

RESPAWN_FIRST, RESPAWN_LAST = 0.1, 10.0
"""Seconds before a child is started again: at first, and at most. It stays far below the restart time of 120 s."""

HEALTHY = 60.0
"""Seconds after which a child's death is no reason any more to wait longer for the next one."""

PING, SILENCE = 5.0, 20.0
"""Seconds between pings, and without an answer to one until the child is taken for stuck and killed."""

REFUSALS_REMEMBERED = 10_000
"""Refused paths that are not logged again; beyond that they are, rather than filling the memory."""

log = structlog.get_logger()


class BgpService:
    """BGP for one node; what the agent holds. Everything but `run` and `stop` returns at once.

    Attributes:
        problem: what is wrong with BGP as a whole, in one sentence; None while nothing is.
        child_pid: the process that holds the sessions; None while there is none.
        respawns: how often that process had to be started again.
    """

    def __init__(
        self, *, on_change: Callable[[], None], python: str = sys.executable, wrapper: tuple[str, ...] = ()
    ) -> None:
        """Take what is needed to start the child.

        Args:
            on_change: called in the loop's thread after best paths or sessions have changed, once for many changes.
            python: the interpreter of the child.
            wrapper: put before the child's command, as ("ip", "netns", "exec", "blue").
        """
        self.problem: str | None = None
        self.child_pid: int | None = None
        self.respawns = 0
        self._on_change = on_change
        self._command = (*wrapper, python, "-P", "-m", "bgp.exabgp_start")
        self._speaker: Speaker | None = None
        self._child: Child | None = None
        self._child_is_for: tuple[object, ...] = ()
        self._wanted = asyncio.Event()
        self._change_due = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._refused: set[tuple[IPAddress, IPv4Network, str]] = set()

    # --- what the agent asks

    def configure(self, settings: SpeakerSettings) -> None:
        """Hold these sessions and announce these prefixes from now on; cheap when nothing has changed."""
        if self._speaker is None:
            self._speaker = Speaker(settings, _now())
            self._changed()
        elif self._speaker.settings != settings:
            self._feed(Configured(settings))
            self._changed()
        if reachable(settings):
            self._wanted.set()
        else:
            self._wanted.clear()
            self.problem = None
        self._review(settings)

    def _review(self, settings: SpeakerSettings) -> None:
        """End a child that is not wanted any more, or not as it is; `run` starts the one that is."""
        if self._child and (not reachable(settings) or self._child_is_for != _identity(settings)):
            self._child.close("settings changed")

    def best_paths(self) -> Mapping[IPv4Network, BestPath]:
        """Return the Loc-RIB."""
        return dict(self._speaker.loc_rib.best) if self._speaker else {}

    def peer_name(self, best: BestPath) -> str:
        """Name who told us the path, as `172.31.2.11 (b1)`."""
        session = self._speaker.sessions.get(best.path.peer) if self._speaker else None
        return f"{best.path.peer} ({session.settings.name})" if session else str(best.path.peer)

    def converged(self) -> bool:
        """Say whether absence of a path means something by now; before the first settings it does not."""
        return self._speaker is not None and self._speaker.converged(_now())

    # --- what felixctl shows

    @property
    def settings(self) -> SpeakerSettings | None:
        """What the speaker was told to do last."""
        return self._speaker.settings if self._speaker else None

    def peers(self) -> tuple[PeerReport, ...]:
        """Report every session."""
        return report.peers(self._speaker, Clock(_now(), datetime.now(UTC))) if self._speaker else ()

    def routes(self) -> tuple[RouteReport, ...]:
        """Report every path that was received, refused ones with the reason."""
        return report.routes(self._speaker) if self._speaker else ()

    def received(self, peer: IPAddress) -> tuple[RouteReport, ...]:
        """Report every path that one peer told."""
        return report.routes(self._speaker, peer) if self._speaker else ()

    def advertised(self, peer: IPAddress) -> tuple[IPv4Network, ...]:
        """Report what one peer was told since its session is up."""
        return report.advertised(self._speaker, peer) if self._speaker else ()

    # --- the child's life

    async def run(self) -> None:
        """Keep a child alive while there are peers, for ever."""
        pause = 0.0
        while True:
            await self._wanted.wait()
            if self._stopped:
                return
            started = _now()
            reason, on_purpose = await self._live()
            if on_purpose or _now() - started > HEALTHY:
                pause = 0.0
            if not on_purpose:
                pause = min(RESPAWN_LAST, pause * 2 + RESPAWN_FIRST)
                self.respawns += 1
            log.warning("bgp.child.exited", reason=reason, respawn_in=round(pause, 1))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that nodes do not go in step

    async def stop(self) -> None:
        """End the child, if it runs; peers keep our paths for the restart time, as after a crash."""
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
        self._child_is_for = _identity(settings)
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
        try:
            async for line in child.lines():
                self._take(child, line)
            reason = await child.end()
        except asyncio.CancelledError:
            await child.end("the agent stops")
            raise
        finally:
            pings.cancel()
            self._child = self.child_pid = None
        if not child.on_purpose and self.problem is None:
            self.problem = f"the BGP process ended: {reason}; it is started again"
        self._feed(WireLost(f"our BGP process ended: {reason}"))
        self._changed()
        return reason, child.on_purpose

    async def _ping(self, child: Child) -> None:
        """Ask every PING seconds; kill a child that does not answer."""
        number = 0
        while True:
            await asyncio.sleep(PING)
            number += 1
            child.write(codec.ping(number))
            if number - child.answered > SILENCE / PING:
                child.kill(f"no answer for {SILENCE:.0f} s")

    def _take(self, child: Child, line: bytes) -> None:
        """Understand one line of the child and act upon it."""
        try:
            heard = exabgp_events.heard(line)
        except exabgp_events.Rubbish as rubbish:
            child.kill(str(rubbish))
            return
        for event in heard:
            match event:
                case exabgp_events.Configured(None):
                    self.problem = None
                    self._changed()
                case exabgp_events.Configured(error):
                    self.problem = f"ExaBGP refused its configuration: {error}"
                    child.kill(self.problem)
                case exabgp_events.CommandRefused():
                    child.kill("ExaBGP did not understand a command")
                case exabgp_events.Alive(number):
                    child.answered = number
                case exabgp_events.CannotListen():
                    self.problem = _cannot_listen(event)
                    self._changed()
                case _:
                    self._feed(event)

    def _feed(self, event: Event) -> None:
        """Give the speaker an event, and do what it says."""
        if self._speaker is None:
            return
        for effect in self._speaker.on(event, now=_now()):
            self._do(effect)
        self._arm()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Announce() | Withdraw() | AnnounceEndOfRib() | HoldSessions():
                if self._child and self._speaker:
                    self._child.write(*codec.lines(effect, self._speaker.settings))
            case RouteChanged():
                self._changed()
            case SessionUp(peer):
                log.info("bgp.session.up", peer=str(peer.address), name=peer.name, asn=peer.asn)
                self._changed()
            case SessionDown(peer, reason, kept):
                log.warning("bgp.session.down", peer=str(peer.address), name=peer.name, reason=reason, kept=kept)
                self._changed()
            case PathRefused():
                self._log_refusal(effect)
            case _:
                assert_never(effect)

    def _log_refusal(self, refused: PathRefused) -> None:
        """Log a refused path the first time."""
        key = (refused.path.peer, refused.path.prefix, str(refused.refusal))
        if key in self._refused:
            return
        if len(self._refused) >= REFUSALS_REMEMBERED:
            self._refused.clear()
        self._refused.add(key)
        log.info("bgp.path.refused", prefix=str(key[1]), peer=str(key[0]), reason=key[2])

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


def _identity(settings: SpeakerSettings) -> tuple[object, ...]:
    """Return what a child cannot change: it takes a new one."""
    return settings.local_address, settings.listen_port, settings.asn, settings.router_id


def _cannot_listen(event: exabgp_events.CannotListen) -> str:
    if "in use" in event.reason:
        return (
            f"port {event.port} of {event.address} is in use by another program, so BGP holds no session; "
            f"stop that program (`ss -ltnp sport = :{event.port}` names it) or choose another listenPort"
        )
    if "invalid address" in event.reason:
        return (
            f"{event.address} is no address of this host, so BGP cannot listen on its port {event.port}; "
            "give the node the address that its interface has"
        )
    return f"BGP cannot listen on {event.address} port {event.port}: {event.reason}"
