"""The process that holds the sessions: ExaBGP, spoken to over standard input and output.

There is no configuration file, no helper process and no named pipe. Lines in: `%%config JSON` first and whenever
sessions change, `%%ping N` or `%%ping N counters`, `%%VERB JSON` about one session (`close` it; `part`: close it when
the next configuration takes it out; say `eor`, End-of-RIB; ask for a `refresh`), and ExaBGP's commands. Lines out:
JSON, one event each; but a line that begins with `UPDATES` ends with a number, and so many bytes follow it: UPDATEs as
they came from the peer that the line names. End of input means that the agent has died, and so do we, without a
NOTIFICATION: peers then keep our paths (graceful restart).
"""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from exabgp.bgp.fsm import FSM
from exabgp.bgp.message.update.attribute import Attribute
from exabgp.configuration.configuration import Configuration
from exabgp.configuration.core.format import formated
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.reactor import loop
from exabgp.reactor.api.processes import Processes
from exabgp.reactor.api.response.json import JSON
from exabgp.reactor.interrupt import Signal

from bgp import exabgp_reactor
from bgp.exabgp_reactor import HOT, Reactor

PROCESS = "agent"
"""The name that the configuration gives to us as the process to tell events to."""

OUTPUT_LIMIT = 64 << 20
"""Bytes that may wait for an agent that does not read; beyond that it is better to start again than to grow."""

FULL = 8 << 20
"""Bytes that may wait before connections are not read any more: then it is the peers who wait, and nothing is lost."""

PIPE = 1 << 20
"""Bytes that the pipe to the agent holds; the most that Linux gives everybody, and worth 16 times fewer wake-ups."""

NO_RIGHT = f"""it may not become the user {exabgp_reactor.UNPRIVILEGED}, as which it listens to strangers;
give the agent's container the capabilities SETUID and SETGID"""


AT_ONCE = {"close": Reactor.close_session, "part": Reactor.note_parting}
"""Orders about one session that do not wait."""

IN_TURN = {"eor": Reactor.end_of_rib, "refresh": Reactor.refresh}
"""Those that come after what was announced before. ExaBGP has commands for them, and refuses them where the session has
just ended; a command that is refused ends this process."""


class Encoder(JSON):  # type: ignore[misc]
    """ExaBGP's own JSON without what is the same in every line."""

    def _header(self, content: str, header: bytes, body: bytes, neighbor: Any, message_type: str | None = None) -> str:
        del header, body, neighbor
        return f'{{ "type": "{message_type}", {content} }}'


class Link(Processes):  # type: ignore[misc]
    """Standard input and output in the place of ExaBGP's helper processes; never waits for the other side."""

    def __init__(self, reactor: "Reactor", waiting: bytes) -> None:
        super().__init__()
        self._reactor = reactor
        self._in = waiting
        self._out = bytearray()
        self._began = False
        self._encoder[PROCESS] = Encoder("5")
        self._ackjson[PROCESS] = False
        self._ack[PROCESS] = True
        self._process[PROCESS] = True
        self.fds = [0]
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        with contextlib.suppress(OSError):  # it is no pipe, or too many are that large
            fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, PIPE)

    # What ExaBGP asks of its helper processes: there is one, it runs, and we do not start it.

    def start(self, configuration: Any, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - ExaBGP's signature
        """Tell that the first configuration holds: everything listens. Some signals have stock call this again."""
        del configuration, restart
        if not self._began:
            self._began = True
            self.tell(type="configured", error=None)

    def broken(self, neighbor: Any) -> bool:
        """Say that nothing is broken; if the agent is, we end."""
        del neighbor
        return False

    def terminate(self) -> None:
        """Write what is left, if somebody reads it."""
        self.silence = True
        self.flush()

    # Lines in.

    def received(self) -> Iterator[tuple[str, str]]:
        """Yield the commands that have come; answer our own at once."""
        try:
            data = os.read(0, 1 << 16)
        except BlockingIOError:
            data = b""
        else:
            if not data:
                self.end()
                return
        if not data and b"\n" not in self._in:
            return
        *lines, self._in = (self._in + data).split(b"\n")
        self._reactor.hot = HOT
        for line in (raw.decode("ascii", "replace").strip() for raw in lines):
            if line.startswith("%%"):
                self._own(*line[2:].partition(" ")[::2])
            elif line:
                yield PROCESS, formated(line)

    def end(self) -> None:
        """Stop at the next turn; of the peers, only those hear of it who were to hear something else anyway."""
        self._reactor.part()
        self.silence = True
        self._out.clear()
        self._reactor.signal.received = Signal.SHUTDOWN

    def _own(self, verb: str, argument: str) -> None:
        if verb == "config":
            # Commands that wait are for sessions of before, which the new configuration may not have.
            self._reactor.asynchronous.after_all(PROCESS, partial(self._configure, json.loads(argument)))
        elif verb in AT_ONCE:
            AT_ONCE[verb](self._reactor, json.loads(argument))
        elif verb in IN_TURN:
            self._reactor.asynchronous.after_all(PROCESS, partial(IN_TURN[verb], self._reactor, json.loads(argument)))
        elif verb == "ping":
            number, _, wanted = argument.partition(" ")
            self._pong(int(number), counters=bool(wanted))

    def _configure(self, text: str) -> None:
        self.tell(type="configured", error=self._reactor.take(text))

    def _pong(self, number: int, *, counters: bool) -> None:
        self._reactor.tell_drops()
        self.tell(type="pong", number=number, counters=self._reactor.counters() if counters else {})

    # Lines out.

    def tell(self, **event: Any) -> None:
        """Write an event of our own."""
        self.write(PROCESS, json.dumps(event))

    def write(self, process: str, string: str | None, neighbor: Any = None) -> bool:
        """Put a line where `flush` finds it."""
        del process, neighbor
        if string is not None:
            self._put(string.encode("ascii", "backslashreplace") + b"\n")
        return True

    def updates(self, title: bytes, run: bytes) -> None:
        """Hand on UPDATEs as they came."""
        self._put(b"%s %d\n%s" % (title, len(run), run))

    def _put(self, data: bytes) -> None:
        if self._reactor.ended:
            return
        self._out += data
        if len(self._out) > OUTPUT_LIMIT:
            self._reactor.ended = True
            sys.stderr.write(f"the agent has not read for {OUTPUT_LIMIT} bytes\n")
            os._exit(1)

    def flush(self) -> None:
        """Write as much as the other side takes now."""
        while self._out:
            try:
                del self._out[: os.write(1, self._out)]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.end()

    @property
    def waiting(self) -> bool:
        """Whether the other side has to read before we can write more."""
        return bool(self._out)

    @property
    def full(self) -> bool:
        """Whether so much waits that connections should not be read."""
        return len(self._out) > FULL

    def answer_done(self, service: str, force: bool = False) -> None:  # noqa: FBT001, FBT002 - ExaBGP's signature
        """Say nothing: what was understood is no news."""

    def answer_error(self, service: str) -> None:
        """Say that a command was not understood."""
        del service
        self.tell(type="refused")

    # Events.

    def up(self, neighbor: Any) -> None:
        """Tell that a session is established, and over which connection."""
        if self.silence:
            return
        encoder = self._encoder[PROCESS]
        session = encoder._json(json.dumps(self._reactor.established(neighbor)))  # noqa: SLF001 - as JSON does itself
        state = encoder._kv({"state": "up", "session": session})  # noqa: SLF001 - same
        self.write(PROCESS, encoder._header(encoder._neighbor(neighbor, None, state), b"", b"", neighbor, "state"))  # noqa: SLF001 - same

    def connected(self, neighbor: Any) -> None:
        """Say nothing: a TCP connection is not a session."""

    def fsm(self, neighbor: Any, fsm: Any) -> None:
        """Tell the two states between a connection and a session; the others follow from other events."""
        if fsm.state in (FSM.OPENSENT, FSM.OPENCONFIRM):
            super().fsm(neighbor, fsm)

    def notification(self, neighbor: Any, direction: str, code: int, subcode: int, *_: Any) -> None:
        """Say nothing of a faulty header: the NOTIFICATION that we send for it is told; stock raises."""


def _first_line() -> tuple[bytes, bytes]:
    """Read the configuration, which comes first; return it and what came after it."""
    data = b""
    while b"\n" not in data:
        more = os.read(0, 1 << 16)
        if not more:
            sys.exit(0)
        data += more
    first, _, rest = data.partition(b"\n")
    return first, rest


def main() -> int:
    """Run until the agent closes our input."""
    first, rest = _first_line()
    with contextlib.suppress(PermissionError):  # user namespaces may forbid it, and then nothing is gained by it
        os.setgroups([])
    env = getenv()
    log.init(env)
    Attribute.caching = env.cache.attributes
    exabgp_reactor.install()
    reactor = Reactor(Configuration([json.loads(first.partition(b" ")[2])], text=True))
    link = Link(reactor, rest)
    loop.Processes = lambda: link
    reactor.processes = link
    ear = reactor.listener  # shutdown forgets it
    code = int(reactor.run())
    if ear.failure:
        address, port, reason = ear.failure
        link.tell(type="listen", address=address, port=port, reason=reason)
    elif code:
        error = NO_RIGHT if code == reactor.Exit.privileges else str(reactor.configuration.error)
        link.tell(type="configured", error=" ".join(error.split()) or f"exit status {code}")
    link.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
