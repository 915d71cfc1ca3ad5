"""The words of a trace: a packet, what a machine is asked about it, and what it answers."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Self

from felix_py.kernel.flow import Flow
from felix_py.model import IPAddress


class Verdict(StrEnum):
    """What becomes of a packet at one look into a machine's tables."""

    FORWARDED = "forwarded"
    ENCAPSULATED = "encapsulated"
    DECAPSULATED = "decapsulated"
    DELIVERED = "delivered"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet, as far as routing looks at it.

    Attributes:
        source: None where the machine that sends it is to choose.
        inner: what it carries, where it is a tunnel's packet.
        encapsulation: by which kind of tunnel, a key of `encapsulations.TABLE`.
        size: bytes, sent with "don't fragment"; None where the size is no matter.
        flow: protocol and ports; None where nobody says, and of a tunnel's packet, whose kind says it.
    """

    source: IPAddress | None
    destination: IPAddress
    inner: Self | None = None
    encapsulation: str | None = None
    size: int | None = None
    flow: Flow | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a machine is asked.

    Attributes:
        via: the address to which the machine before handed the packet; None where this machine sends it itself.
    """

    packet: Packet
    via: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """One look into a machine's tables; a machine that wraps or unwraps a packet looks twice.

    Attributes:
        arrives: the interface that the packet came in by; None where it begins here.
        route: the route that decides, as `10.65.3.0/26 via 172.31.2.12`; empty where there is none.
        prefix: of that route, alone.
        protocol: who made that route, as `ip route` says it.
        table: the routing table that has it, as `ip route` says it; None where the kernel does not say.
        device: where the packet leaves; None where it stays.
        mtu: bytes that may leave there.
        tunnel: what carries it from here, as `ipip by ebpf, 172.31.1.11 to 172.31.2.12`.
        reason: of the verdict, in one sentence.
        origin: who gave the route, where the machine's agent knows: a BGP peer, a block, a pod.
        why: the sentences that led to the route.
        notes: what may be in the way and could not be judged.
    """

    packet: Packet
    verdict: Verdict
    reason: str
    arrives: str | None = None
    route: str = ""
    prefix: str | None = None
    protocol: str | None = None
    device: str | None = None
    mtu: int | None = None
    tunnel: str | None = None
    origin: str | None = None
    why: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: str | None = None


class Next(NamedTuple):
    """To whom a machine hands a packet."""

    address: IPAddress
    packet: Packet


@dataclass(frozen=True, slots=True)
class Answer:
    """What a machine does with a packet.

    Attributes:
        next: None where the packet ends here.
    """

    legs: tuple[Leg, ...]
    next: Next | None = None


class Machine(NamedTuple):
    """Somebody on the way."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Hop:
    """A machine and what it answered.

    Attributes:
        unasked: why it was not asked, and what is taken for granted; None where it was.
    """

    machine: Machine
    legs: tuple[Leg, ...] = ()
    unasked: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way.

    Attributes:
        delivered: None where nobody could be asked who knows.
        reason: why it ends where it ends.
        mtu: the largest packet, in bytes, that the whole way takes, as far as it is known.
    """

    hops: tuple[Hop, ...] = field(default=())
    delivered: bool | None = None
    reason: str = ""
    mtu: int | None = None
