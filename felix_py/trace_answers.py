"""What the local API answers about one packet at this node: the kernel's looks, and the agent's reasons beside."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network

from felix_py.agent import Agent
from felix_py.api import Answer
from felix_py.calc.candidates import Candidate, Kind
from felix_py.kernel import ownership, rule_codec
from felix_py.kernel.objects import KernelRefused, RouteKey
from felix_py.model import BlockAffinity, Node, WorkloadEndpoint
from felix_py.trace import documents, words
from felix_py.trace.documents import Unreadable
from felix_py.trace.passing import passing
from felix_py.trace.seams import TunnelFacts
from felix_py.trace.sight import KernelSight
from felix_py.trace.words import Leg, Question, Verdict
from felix_py.turn import Turns
from ipip import tunnel
from ipip.device import Device
from vxlan.device import Device as VxlanDevice


class TraceAnswers:
    """Answers for one node."""

    def __init__(self, agent: Agent, device: Device) -> None:
        self._agent = agent
        self._device = device

    async def trace(self, _parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer what this node does with the packet of `question`, a document."""
        try:
            document = json.loads(query.get("question", ""))
            question = documents.read_question(document if isinstance(document, dict) else {})
        except (ValueError, Unreadable) as error:
            return 400, {"error": f"question is no question: {error}"}
        facts = await self._agent.ask(self._tunnels)
        try:
            # In a thread of its own: it waits for neighbours, and the kernel's thread has routes to keep.
            answer = await asyncio.to_thread(_looked, question, facts)
        except KernelRefused as refusal:
            return 503, {"error": f"the kernel could not be asked: {refusal}"}
        legs = await self._agent.ask(lambda turns: tuple(_explained(leg, turns) for leg in answer.legs))
        document = documents.answer(words.Answer(legs, answer.next))
        return 200, {"node": self._agent.node_name, **document}

    def _tunnels(self, turns: Turns) -> dict[str, TunnelFacts]:
        found = {}
        for name, wanted in turns.wish.state.tunnels.items():
            if name != tunnel.DEVICE:  # only the drivers of IP in IP differ from each other, and judge who sends
                found[name] = TunnelFacts(VxlanDevice.driver, wanted.local)
                continue
            have = self._device.read(name)
            allowed = have.allowed if have is not None else None
            found[name] = TunnelFacts(self._device.driver, wanted.local, allowed)
        return found

    async def nodes(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer which nodes and pools there are, as the datastore says."""
        cluster = self._agent.cluster
        blocks: dict[str, list[str]] = {}
        for affinity in cluster.of(BlockAffinity):
            blocks.setdefault(affinity.node, []).append(str(affinity.cidr))
        default = cluster.bgp().as_number
        rows = [
            {
                "name": node.name,
                "addresses": [str(each) for each in (node.address, node.address6) if each is not None],
                "asNumber": node.as_number or default,
                "blocks": sorted(blocks.get(node.name, [])),
                "here": node.name == self._agent.node_name,
            }
            for node in cluster.of(Node)
        ]
        pods = [
            {"name": each.name, "node": each.node, "addresses": [str(net.network_address) for net in each.networks]}
            for each in cluster.of(WorkloadEndpoint)
        ]
        return 200, {"node": self._agent.node_name, "nodes": rows, "pods": pods}


def _looked(question: Question, facts: Mapping[str, TunnelFacts]) -> words.Answer:
    with KernelSight() as sight:
        answer = passing(question, sight, facts)
        if sight.unfiltered is None:
            return answer
        note = f"the packet filters could not be read: {sight.unfiltered}"
        return replace(answer, legs=tuple(replace(leg, notes=(*leg.notes, note)) for leg in answer.legs))


def _explained(leg: Leg, turns: Turns) -> Leg:
    """Add who gave a route of ours, and why; and to a packet's end what the agent knows about it."""
    plain = leg.table in (None, *rule_codec.TABLES.values())
    chosen = turns.wish.chosen.get(RouteKey(ip_network(leg.prefix))) if leg.prefix is not None and plain else None
    ours = leg.protocol == ownership.protocol_name(ownership.ROUTE_PROTOCOL) or leg.protocol is None
    if chosen is not None and ours:
        leg = replace(leg, origin=chosen.origin, why=tuple(_why(chosen)))
    ends = leg.verdict is Verdict.DROPPED
    if ends and chosen is not None and chosen.kind is Kind.BLACKHOLE:
        sentence = f"{chosen.origin} is here, and no pod has {leg.packet.destination}"
        return replace(leg, reason=f"{leg.reason}: {sentence}")
    missing = _missing(leg, turns)
    if missing is None:
        return leg
    prefix, candidate = missing
    sentence = f"{prefix}, of {candidate.origin}, is not installed: {candidate.obstacle}"
    if ends and leg.prefix is None:
        return replace(leg, reason=f"{leg.reason}; {sentence}", origin=candidate.origin, why=tuple(_why(candidate)))
    return replace(leg, notes=(*leg.notes, sentence))


def _why(candidate: Candidate) -> Iterator[str]:
    yield candidate.rule
    if candidate.encapsulation is not None:
        yield candidate.encapsulation.why
    yield from candidate.notes


def _missing(leg: Leg, turns: Turns) -> tuple[str, Candidate] | None:
    """Return the route that would decide in the place of the one that does, could it be installed."""
    least = ip_network(leg.prefix).prefixlen if leg.prefix is not None else -1
    waiting: Iterable[RouteKey] = (key for key in turns.wish.waiting if leg.packet.destination in key.dst)
    key = max(waiting, key=lambda each: each.dst.prefixlen, default=None)
    if key is None or key.dst.prefixlen <= least:
        return None
    return str(key.dst), turns.wish.chosen[key]
