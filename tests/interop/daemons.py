"""Three BGP daemons behind one interface: what a test may ask of BIRD, FRR and GoBGP, in the words of `bgp.types`."""

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import ClassVar

from bgp.types import Attributes, Family, IPAddress, IPNetwork

PATIENCE = 10.0
"""Seconds until a condition that should hold soon is given up; these machines are shared."""

LOOK_AGAIN = 0.01
"""Seconds between two looks at a daemon that offers no event to wait for; most answer in under a millisecond."""


def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> float:
    """Wait for a condition and return the seconds it took; fail with what was waited for."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() > start + within:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(LOOK_AGAIN)
    return time.monotonic() - start


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A session as a daemon is to hold it.

    Attributes:
        passive: the daemon waits for the other side to dial.
        hops: how far away it may be, where it is no neighbour on the wire (eBGP multihop).
        ttl_security: packets must come with a TTL of 255 (RFC 5082).
        restart_time: seconds of graceful restart that the daemon asks for; None: it does not do graceful restart.
        client: the daemon reflects to it (RFC 4456).
        capabilities: the OPEN carries any (RFC 5492).
        extended_next_hop: IPv4 prefixes may have IPv6 next hops (RFC 8950).
    """

    address: IPAddress
    asn: int
    hold_time: int = 90
    passive: bool = True
    password: str | None = None
    hops: int | None = None
    ttl_security: bool = False
    families: tuple[Family, ...] = (Family.IPV4_UNICAST,)
    restart_time: int | None = None
    client: bool = False
    capabilities: bool = True
    extended_next_hop: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What a daemon is to be.

    Attributes:
        address6: for neighbours over IPv6, where `address` is IPv4.
        router_id: its address, where it has none of its own.
        forwards: its best paths go into the kernel of its machine; BIRD alone can.
        restarting: it comes back from the dead, and keeps to graceful restart's rules for that (RFC 4724 section 4.1).
    """

    address: IPAddress
    asn: int
    neighbours: tuple[Neighbour, ...]
    router_id: IPv4Address | None = None
    cluster_id: IPv4Address | None = None
    forwards: bool = False
    restarting: bool = False
    address6: IPv6Address | None = None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Where it listens."""
        return (self.address, *((self.address6,) if self.address6 else ()))

    def towards(self, neighbour: Neighbour) -> IPAddress:
        """Return its end of a session."""
        return next(each for each in self.addresses if each.version == neighbour.address.version)

    @property
    def identifier(self) -> IPv4Address:
        """Its BGP identifier."""
        if self.router_id is not None:
            return self.router_id
        assert isinstance(self.address, IPv4Address)
        return self.address


@dataclass(frozen=True, slots=True)
class Seen:
    """A path as a daemon has it.

    Attributes:
        peer: who told it; None where the daemon announces it itself.
        attributes: as they are in its table, with its own local preference where it adds one.
    """

    peer: IPAddress | None
    attributes: Attributes
    best: bool


@dataclass(frozen=True, slots=True)
class SeenSession:
    """A session as a daemon sees it.

    Attributes:
        hold_time: agreed; None while it is not established.
        keepalive: seconds between its own KEEPALIVEs; None where it does not say.
        updates: UPDATE messages that came.
    """

    established: bool
    hold_time: int | None = None
    keepalive: int | None = None
    updates: int = 0


Announcements = Mapping[IPNetwork, Attributes]
"""What a daemon says: a next hop of None is itself; the AS path is what stands before it adds its own AS."""

PLAIN = Attributes(next_hop=None)


@dataclass(slots=True)
class Process:
    """The process of a daemon, in a namespace."""

    namespace: str
    directory: Path
    _running: subprocess.Popen[bytes] | None = None

    def start(self, *command: str | Path, environment: Mapping[str, str] | None = None) -> None:
        """Start it; what it says goes to a file of its directory."""
        assert self._running is None, "it runs already"
        with (self.directory / "log").open("ab") as log:
            self._running = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """`ip netns exec` becomes the command, so this is the daemon's own."""
        assert self._running is not None, "it does not run"
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Say whether it runs."""
        return self._running is not None and self._running.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, as SIGSTOP to freeze it."""
        os.kill(self.pid, number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it if it runs, and see that it has ended."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                self._running.send_signal(signal.SIGCONT)
                self._running.send_signal(number)
            try:
                self._running.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._running.kill()
                self._running.wait()
                raise
            finally:
                self._running = None

    def log(self) -> str:
        """Return what it said."""
        return (self.directory / "log").read_text(errors="replace")


@dataclass
class Daemon(ABC):
    """A BGP daemon in a namespace of its own. Whatever it is told has been done when a function returns.

    Attributes:
        kind: its name in the table of results.
        said: what it announces, also after a restart.
    """

    namespace: str
    directory: Path
    process: Process = field(init=False)
    said: dict[IPNetwork, Attributes] = field(default_factory=dict)
    kind: ClassVar[str]
    _setup: Setup | None = None

    def __post_init__(self) -> None:
        self.process = Process(self.namespace, self.directory)

    # --- its life

    @abstractmethod
    def start(self, setup: Setup) -> None:
        """Start it; it answers questions then, and its sessions come up by themselves."""

    def kill(self) -> None:
        """End it without a word to anybody."""
        self.process.kill(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a service manager does."""
        self.process.kill(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it be silent, with its connections open."""
        self.process.send(signal.SIGSTOP)

    # --- being told

    @abstractmethod
    def announce(self, announcements: Announcements) -> None:
        """Announce prefixes to every neighbour, in place of what was said of them before."""

    @abstractmethod
    def withdraw(self, *prefixes: IPNetwork) -> None:
        """Withdraw what was announced."""

    @abstractmethod
    def shut(self, address: IPAddress, message: str) -> None:
        """Take a session down and keep it down, with a word for the other side (RFC 9003)."""

    @abstractmethod
    def open(self, address: IPAddress) -> None:
        """Let a session that was shut come back."""

    @abstractmethod
    def ask_again(self, address: IPAddress) -> None:
        """Ask the other side for all its routes again (RFC 2918)."""

    # --- being asked

    @abstractmethod
    def routes(self) -> Mapping[IPNetwork, tuple[Seen, ...]]:
        """Return its table, both families."""

    @abstractmethod
    def session(self, address: IPAddress) -> SeenSession:
        """Return one session."""

    @abstractmethod
    def version(self) -> str:
        """Return what it calls itself."""

    def has(self, *prefixes: IPNetwork) -> bool:
        """Say whether these are in its table."""
        return set(prefixes) <= self.routes().keys()

    @property
    def setup(self) -> Setup:
        """What it was started with."""
        assert self._setup is not None, "it was never started"
        return self._setup


def numbers(text: str) -> tuple[int, ...]:
    """Return the decimal numbers of a text, as in `(64500, 1)`."""
    return tuple(int(word) for word in "".join(each if each.isdigit() else " " for each in text).split())


def address(text: str) -> IPAddress | None:
    """Return an address, or None for what is none, or no particular one."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return None if found.is_unspecified else found
