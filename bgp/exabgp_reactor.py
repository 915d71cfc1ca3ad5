"""ExaBGP's reactor, peers and connections, replaced where they wait, dial and say goodbye; the rest is ExaBGP's own.

It is pinned to 5.0.15, since this file reaches into its classes; tests/interop checks the pair.
"""

import itertools
import math
import os
import pwd
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exabgp.bgp.fsm import FSM
from exabgp.bgp.message import Notify
from exabgp.bgp.message.refresh import RouteRefresh
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI, Family
from exabgp.reactor import loop, peer, protocol
from exabgp.reactor.listener import Listener
from exabgp.reactor.network.error import BindingError, NetworkError, NotConnected

from bgp import drops, exabgp_options, exabgp_shortcuts, exabgp_timers, exabgp_wire
from bgp.exabgp_dialling import Dialler, ShortDelay, Unconnected
from bgp.exabgp_queue import Queue
from bgp.exabgp_timers import NEVER
from bgp.exabgp_wire import Wire

PERIOD = 0.5
"""Seconds between turns of peers that have nothing to do; their timers count whole seconds."""

HOT = 3
"""Turns that all peers get at once after a command or a connection: it is worked off after their turn, not before."""

NETSTAT = Path("/proc/self/net/netstat")
"""Where the kernel counts, for this network namespace."""

UNPRIVILEGED = "nobody"
"""Whom the process becomes when it listens."""

ADMINISTRATIVE, COLLISION = (6, 3), (6, 7)
"""Cease, Peer De-configured and Connection Collision Resolution (RFC 4486)."""


class Peer(peer.Peer):  # type: ignore[misc]
    """ExaBGP's peer, which also knows whether it wants another turn, and says goodbye when it is removed."""

    busy = False
    goodbye: Notify | None = None
    parting: Notify | None = None
    notified = False
    title = b""
    session = 0
    keepalive_due = NEVER

    def run(self) -> Any:
        """Take a turn."""
        began = self.generator is None
        action = super().run()
        # Stock asks for turns for as long as it waits for the first KEEPALIVE; the socket wakes us.
        waits = self.fsm == FSM.OPENCONFIRM and not self.reactor.woke(self.socket()) and not self._has_message()
        self.busy = (action == peer.ACTION.NOW and not waits) or (began and bool(self.generator))
        return action

    def wants_turn(self, ready: set[int], now: float) -> bool:
        """Say whether a turn now would do anything."""
        if self.busy or now >= self.keepalive_due or (self.proto is not None and self.socket() in ready):
            return True
        return self.pausing and self._delay.left() < 0

    def _has_message(self) -> bool:
        return self.proto is not None and exabgp_wire.whole(self.proto.connection)

    @property
    def listens(self) -> bool:
        """Whether it wants to be woken by what its peer says: not while the agent has too much to read already."""
        return not (self.fsm == FSM.ESTABLISHED and self.reactor.processes.full)

    def reconfigure(self, restart_neighbor: Any = None) -> None:
        """Take a neighbour that says the same; stock forgets with the old one what was still to be said."""
        if restart_neighbor:
            restart_neighbor.eor.extend(self.neighbor.eor)
            restart_neighbor.refresh.extend(self.neighbor.refresh)
        super().reconfigure(restart_neighbor)
        # Stock would go through the routes of both, of which there are none, and fall in a session that is coming up.
        self._neighbor = self.neighbor.previous = None

    def close_with(self, code: int, subcode: int, data: bytes, session: int | None) -> None:
        """Close the session with a NOTIFICATION, unless it is another one by now."""
        if self.fsm == FSM.ESTABLISHED and session in (None, self.session):
            self.goodbye, self.busy = Notify(code, subcode, data), True

    def say_goodbye(self) -> None:
        """Raise the NOTIFICATION that is to be sent, if there is one; ExaBGP sends it, and closes."""
        if self.goodbye:
            notify, self.goodbye = self.goodbye, None
            raise notify

    @property
    def pausing(self) -> bool:
        """Whether it waits for the pause between two connections to be over."""
        return self.proto is None and self.generator is None and not self.neighbor["passive"]

    def remove(self) -> None:
        """Close for good. With graceful restart stock closes in silence, and the peer would keep our paths."""
        if self.proto is not None and self.fsm == FSM.ESTABLISHED:
            self._send(self.parting or self.goodbye or Notify(*ADMINISTRATIVE, b""))
        super().remove()

    def say_parting(self) -> None:
        """Say at once how the session was to be closed, if it was."""
        if self.parting and self.fsm == FSM.ESTABLISHED:
            self._send(self.parting)

    def handle_connection(self, connection: Any) -> Any:
        """Take a connection that the peer opened, or refuse it.

        RFC 4271 section 6.8 compares identifiers to choose between one connection of each side. Stock does so with two
        of the peer's as well, and where our identifier is the higher one, a connection that never got beyond OPEN keeps
        the peer out until the hold timer ends it. A peer that dials again has given up the first: the newer one wins.
        """
        twice = self.fsm == FSM.OPENCONFIRM and self.proto.connection.direction == "incoming"
        if twice and not self.stopping():
            self._send(Notify(*COLLISION, b""))
            self._close("the peer connected anew before the session was established")
        return super().handle_connection(connection)

    def _send(self, notify: Notify) -> None:
        """Send a NOTIFICATION now, if the socket takes it; a connection has one at most."""
        if self.notified:
            return
        self.notified = True
        try:
            self.proto.connection.io.send(notify.message())
        except OSError as error:
            log.warning(lambda error=error: f"NOTIFICATION not sent: {error}", "reactor")

    def _close(self, message: str = "", error: Any = "") -> None:
        self.goodbye, self.keepalive_due = None, NEVER
        if isinstance(error, NotConnected) and self.proto is None:
            name = error.name if isinstance(error, Unconnected) else ""
            self.reactor.tell_failure(self.neighbor["peer-address"], name, str(error))
        super()._close(message, error)
        self.notified = False

    def begin(self, session: int) -> dict[str, Any]:
        """Take note of a session that is established; return what is known of its connection."""
        self.session = session
        self.neighbor.eor.clear()  # what the last session found no time for is not for this one
        self.neighbor.refresh.clear()
        peer = self.neighbor["peer-address"]
        self.title = f"UPDATES {peer} {session} {','.join(self._terms())}".encode("ascii")
        self.bound_silence()
        io = self.proto.connection.io
        return {
            "hold_time": int(self.proto.negotiated.holdtime),
            "local": io.getsockname()[:2],
            "remote": io.getpeername()[:2],
            "dialled": self.proto.connection.direction == "outgoing",
        }

    def _terms(self) -> Iterator[str]:
        """Yield what was agreed on, as far as it changes what UPDATEs mean."""
        agreed = self.proto.negotiated
        if self.neighbor["local-as"] != self.neighbor["peer-as"]:
            yield "external"
        if agreed.asn4:
            yield "four-octet"
        if any((str(afi), str(safi)) == ("ipv4", "unicast") for afi, safi, _ in agreed.nexthop):
            yield "ipv6-next-hops"
        # A peer that says nothing of families speaks of IPv4 (RFC 4760 section 8).
        yield from (f"{afi}-{safi}" for afi, safi in agreed.families or [("ipv4", "unicast")])

    def bound_silence(self) -> None:
        """Let the kernel give up a connection after the hold time; stock waits for a full send queue to drain."""
        seconds = int(self.proto.negotiated.holdtime)
        if seconds:
            milliseconds = seconds * 1000
            self.proto.connection.io.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


class Ear(Listener):  # type: ignore[misc]
    """ExaBGP's listener, which remembers why it could not listen."""

    failure: tuple[str, int, str] | None = None

    def _listen(self, local_ip: Any, peer_ip: Any, local_port: int, *rest: Any) -> None:
        try:
            super()._listen(local_ip, peer_ip, local_port, *rest)
        except (BindingError, NetworkError) as error:
            self.failure = (str(local_ip), local_port, str(error))
            raise


class Reactor(loop.Reactor):  # type: ignore[misc]
    """ExaBGP's reactor, which sleeps until something happens and gives turns to those it happened to.

    Stock wakes every 10 ms and asks every peer: 1 % of a core for one, 19 % for 200.
    """

    def __init__(self, configuration: Any) -> None:
        super().__init__(configuration)
        self.listener = Ear(self)
        self.asynchronous = Queue()
        self.daemon.user = _user()
        self.hot = HOT
        self.ended = False
        self._ready: set[int] = set()
        self._next_turn = 0.0
        self._parent = os.getppid()
        self._sessions = itertools.count(1)
        self._dropped = drops.counted(NETSTAT.read_text())

    def take(self, text: str) -> str | None:
        """Hold the sessions of a new configuration; return what is wrong with it."""
        before = self.configuration._configurations[0]  # noqa: SLF001 - there is no other way to reload from text
        self.configuration._configurations[0] = text  # noqa: SLF001 - same
        if self.reload():
            # Their sessions are closed. Stock forgets them at their next turn only, and would take one that is wanted
            # again by then for one that is there already.
            for key in self._peers.keys() - self.configuration.neighbors.keys():
                del self._peers[key]
            self.hot = HOT
            return None
        error = " ".join(str(self.configuration.error).split())
        self.configuration._configurations[0] = before  # noqa: SLF001 - same
        # 5.0.15 forgets this after an error, and refuses every later configuration for it.
        self.configuration._cleanup()  # noqa: SLF001 - same
        return error or "unknown error"

    def woke(self, descriptor: int) -> bool:
        """Say whether this descriptor was readable before this turn."""
        return descriptor in self._ready

    def established(self, neighbor: Any) -> dict[str, Any]:
        """Take note that a session is established; return what is known of its connection."""
        found: Peer | None = next((each for each in self._peers.values() if each.neighbor is neighbor), None)
        return found.begin(next(self._sessions)) if found else {}

    def close_session(self, order: dict[str, Any]) -> None:
        """Close a session with a NOTIFICATION."""
        for each in self._at(order["peer"]):
            each.close_with(order["code"], order["subcode"], bytes.fromhex(order["data"]), order.get("session"))

    def note_parting(self, order: dict[str, Any]) -> None:
        """Remember how to close a session when the next configuration has it no more."""
        for each in self._at(order["peer"]):
            each.parting = Notify(order["code"], order["subcode"], bytes.fromhex(order["data"]))

    def part(self) -> None:
        """Close the sessions that were to end with a configuration which does not come any more."""
        for each in self._peers.values():
            each.say_parting()

    def end_of_rib(self, order: dict[str, Any]) -> None:
        """Have End-of-RIB said after what was announced before, in a session that is up."""
        for each in self._up(order["peer"]):
            each.neighbor.eor.append(Family(*_family(order)))

    def refresh(self, order: dict[str, Any]) -> None:
        """Have a peer asked to tell everything again, in a session that is up."""
        for each in self._up(order["peer"]):
            each.neighbor.refresh.append(RouteRefresh(*_family(order)))

    def _at(self, address: str) -> list[Peer]:
        """Return the peer with this address, if there is one."""
        return [each for each in self._peers.values() if str(each.neighbor["peer-address"]) == address]

    def _up(self, address: str) -> list[Peer]:
        """Return the same if its session is up, and see to it that it gets turns: there is something to say."""
        self.hot = HOT
        return [each for each in self._at(address) if each.established()]

    def tell_failure(self, peer: Any, error: str, reason: str) -> None:
        """Tell that a peer was not reached, after what the kernel has dropped meanwhile: it may be why."""
        self.tell_drops()
        self.processes.tell(type="dial", peer=str(peer), error=error, reason=reason)

    def tell_drops(self) -> None:
        """Tell what the kernel has dropped since it was told last."""
        now = drops.counted(NETSTAT.read_text())
        counts, self._dropped = drops.since(self._dropped, now), now
        if counts:
            self.processes.tell(type="drops", counts=counts)

    def _tell_silence(self, now: float) -> None:
        for dialler in Dialler.at_work:
            if dialler.silent_at <= now:
                dialler.silent_at = math.inf
                self.tell_failure(dialler.peer, "ETIMEDOUT", "")

    def counters(self) -> dict[str, dict[str, int]]:
        """Return the counts of messages of every established peer, by its address."""
        return {
            str(each.neighbor["peer-address"]): {
                name: count
                for name, count in each.stats.items()
                if name.startswith(("send-", "receive-")) and isinstance(count, int)
            }
            for each in self._peers.values()
            if each.established()
        }

    def active_peers(self) -> set[str]:
        """Return the peers to give a turn to."""
        now = time.monotonic()
        if self.hot or now >= self._next_turn:
            self.hot = max(0, self.hot - 1)
            self._next_turn = now + PERIOD
            self._tell_silence(now)
            if os.getppid() != self._parent:
                self.processes.end()
            return set(super().active_peers())
        return {key for key, each in self._peers.items() if each.wants_turn(self._ready, now)}

    def _wait_for_io(self, sleeptime: int) -> tuple[()]:
        """Sleep until a descriptor or a timer wakes us."""
        self.processes.flush()
        poller = select.poll()
        poller.register(0, select.POLLIN)
        if self.processes.waiting:
            poller.register(1, select.POLLOUT)
        ears = {sock.fileno() for sock in self.listener._sockets}  # noqa: SLF001 - stock asks them at each turn
        dialled = {dialler.io.fileno() for dialler in Dialler.at_work}
        for descriptor in ears | {each.socket() for each in self._peers.values() if each.listens} - {-1}:
            poller.register(descriptor, select.POLLIN)
        for descriptor in dialled - {-1}:
            poller.register(descriptor, select.POLLOUT)
        self._ready = {descriptor for descriptor, _ in poller.poll(1000 * self._patience(sleeptime))}
        if self._ready & (ears | dialled):
            self.hot = HOT
        return ()

    def _patience(self, sleeptime: int) -> float:
        """Return the seconds until somebody wants a turn although nothing happens."""
        if not sleeptime or self.hot or not self.asynchronous.ready() or any(p.busy for p in self._peers.values()):
            return 0.0
        pauses: list[float] = [each._delay.left() for each in self._peers.values() if each.pausing]  # noqa: SLF001 - ours
        due = min((each.keepalive_due for each in self._peers.values()), default=NEVER)
        now = time.monotonic()
        # A thousandth more: the pause must be over when we wake.
        return max(0.0, min([self._next_turn - now, *(pause + 0.001 for pause in (*pauses, due - now))]))


def _family(order: dict[str, Any]) -> tuple[AFI, SAFI]:
    afi, _, safi = order["family"].partition(" ")
    return AFI.fromString(afi), SAFI.fromString(safi)


def _user() -> str:
    try:
        return pwd.getpwnam(UNPRIVILEGED).pw_name
    except KeyError:
        return pwd.getpwuid(os.getuid()).pw_name


def install() -> None:
    """Have ExaBGP make our peers and connections where it makes its own."""
    loop.Peer, peer.Delay, protocol.Outgoing, peer.Protocol = Peer, ShortDelay, Dialler, Wire
    exabgp_wire.install()
    exabgp_options.install()
    exabgp_timers.install()
    exabgp_shortcuts.install()
