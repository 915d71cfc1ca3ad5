"""From machine to machine: ask one, follow what it says, until the packet ends or nobody can be asked; pure."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from felix_py.model import IPAddress
from felix_py.trace import encapsulations
from felix_py.trace.words import Answer, Hop, Leg, Machine, Packet, Question, Trace, Verdict

MOST = 32
"""Machines on one way; more than any network of ours has."""


class NotAsked(Exception):  # noqa: N818 - named for what it means: what this machine does remains unknown
    """A machine could not be asked; the sentence says why."""


class Asker(Protocol):
    """Who knows the machines of a network, and asks them."""

    def ask(self, machine: Machine, question: Question) -> Answer:
        """Ask a machine.

        Raises:
            NotAsked: when it cannot be asked.
        """

    def whose(self, address: IPAddress, holder: Machine) -> Machine | None:
        """Return who has an address that `holder` hands a packet to; None where nobody is known to."""

    def beyond(self, machine: Machine, packet: Packet) -> tuple[Machine, IPAddress] | None:
        """Return who probably gets a packet after one that could not be asked, at which address; None for unknown."""

    def inferred(self, machine: Machine, question: Question) -> str:
        """Say in a sentence what a machine that could not be asked probably does with a packet; empty for nothing."""


def follow(start: Machine, question: Question, asker: Asker) -> Trace:
    """Return the way of a packet from a machine on."""
    hops: list[Hop] = []
    seen: set[tuple[Machine, Packet]] = set()
    machine: Machine | None = start
    while machine is not None:
        if (machine, question.packet) in seen or len(hops) == MOST:
            names = ", ".join(hop.machine.name for hop in hops)
            return _trace(hops, delivered=False, reason=f"it goes round in circles: {names}, {machine.name}")
        seen.add((machine, question.packet))
        try:
            answer = _about(question, machine, asker.ask(machine, question))
        except NotAsked as silence:
            inferred = asker.inferred(machine, question)
            hops.append(Hop(machine, unasked=". ".join(filter(None, (str(silence), inferred)))))
            skipped = asker.beyond(machine, question.packet)
            if skipped is None:
                return _trace(hops, delivered=None, reason=f"what becomes of it at {machine.name} is not known here")
            machine, question = skipped[0], Question(question.packet, skipped[1])
            continue
        hops.append(Hop(machine, answer.legs))
        last = answer.legs[-1]
        if answer.next is None:
            at = f"{machine.name}: " if last.verdict is not Verdict.DELIVERED else ""
            return _trace(hops, delivered=last.verdict is Verdict.DELIVERED, reason=at + last.reason)
        following = asker.whose(answer.next.address, machine)
        if following is None:
            reason = f"nobody known here has {answer.next.address}, to which {machine.name} hands it"
            return _trace(hops, delivered=None, reason=reason)
        question = Question(answer.next.packet, answer.next.address)
        machine = following
    raise AssertionError  # the loop ends by returning


def _about(question: Question, machine: Machine, answer: Answer) -> Answer:
    """Return an answer that is about the flow that was asked for.

    Raises:
        NotAsked: when it is about none, as of agents that do not know of flows.
    """
    if answer.legs[0].packet.flow != question.packet.flow:
        raise NotAsked(
            f"{machine.name} gave no answer about {question.packet.flow}: its felix-agent is too old for --proto"
        )
    return answer


def _trace(hops: Iterable[Hop], *, delivered: bool | None, reason: str) -> Trace:
    hops = tuple(hops)
    room = min((room for hop in hops for leg in hop.legs for room in _room(leg)), default=None)
    return Trace(hops, delivered, reason, room)


def _room(leg: Leg) -> Iterator[int]:
    """Yield how large the innermost packet may be where this leg leaves."""
    if leg.mtu is None:
        return
    packet, room = leg.packet, leg.mtu
    while packet.inner is not None and packet.encapsulation is not None:
        room -= encapsulations.TABLE[packet.encapsulation].overhead[packet.destination.version]
        packet = packet.inner
    yield room
