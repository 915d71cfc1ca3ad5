"""A packet followed through a lab: every machine on its way is asked in its own namespace, routers and pods, too."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from felix_py.ctl import client
from felix_py.ctl import trace as ctl_trace
from felix_py.kernel.flow import Flow
from felix_py.kernel.wire import WireBroken
from felix_py.lab import namespaces
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology
from felix_py.model import IPAddress
from felix_py.trace import documents, walk
from felix_py.trace.passing import passing
from felix_py.trace.sight import KernelSight
from felix_py.trace.walk import NotAsked
from felix_py.trace.words import Answer, Machine, Packet, Question


class Everybody:
    """All machines of a lab; a `walk.Asker`."""

    def __init__(self, lab: Lab, topology: Topology, version: int) -> None:
        self._lab = lab
        self._nodes = {pod: node.name for pod, node in topology.pods.items()}
        self._kinds = {each.name: "router" for each in topology.routers}
        self._kinds |= {each.name: "host" for each in topology.machines}
        self._kinds |= {each.name: "node" for each in topology.nodes} | dict.fromkeys(self._nodes, "pod")
        pods = lab.pod_addresses(version)
        own: dict[str, list[str]] = {each.name: [str(end) for end in each.ends] for each in topology.machines}
        own |= {each.name: [str(end) for net in each.addresses for end in each.ends(net)] for each in topology.routers}
        self._addresses = {each: name for name, several in own.items() for each in several}
        self._pods = {address: name for name, address in pods.items()}
        self._version = version

    def machine(self, name: str) -> Machine:
        """Return somebody by name.

        Raises:
            Refused: when there is nobody of that name.
        """
        if name not in self._kinds:
            raise Refused(
                f"{name} is nobody in this lab who sends packets; there are {', '.join(self._kinds)}", status=2
            )
        return Machine(name, self._kinds[name])

    def address(self, name: str) -> str | None:
        """Return the address of somebody, of the version of IP that is asked about."""
        every = (*self._addresses.items(), *self._pods.items())
        own = (address for address, owner in every if owner == name)
        return next((each for each in own if (":" in each) is (self._version == 6)), None)  # noqa: PLR2004 - IP versions

    def ask(self, machine: Machine, question: Question) -> Answer:
        """Ask a node by its agent, which knows the reasons, and everybody else's kernel directly.

        Raises:
            NotAsked: when the kernel does not answer, or there is no such namespace.
        """
        if machine.kind == "node":
            try:
                socket = self._lab.of_node(machine.name) / "run" / "agent.sock"
                return documents.read_answer(ctl_trace.ask(socket, documents.question(question)))
            except (client.Unreachable, client.NotFound) as problem:
                note = f"its agent could not be asked who gave the routes: {problem}"
                answer = self._look(machine, question)
                return replace(answer, legs=tuple(replace(leg, notes=(*leg.notes, note)) for leg in answer.legs))
        return self._look(machine, question)

    def _look(self, machine: Machine, question: Question) -> Answer:
        try:
            with namespaces.inside(self._lab.namespace(machine.name)), KernelSight() as sight:
                return passing(question, sight, {})
        except (OSError, WireBroken) as problem:
            raise NotAsked(f"{machine.name} gave no answer: {problem}") from problem

    def whose(self, address: IPAddress, holder: Machine) -> Machine | None:
        """Return who has an address; what a pod sends goes to its node."""
        if holder.kind == "pod":
            return self.machine(self._nodes[holder.name])
        name = self._addresses.get(str(address))
        if name is None and self._nodes.get(self._pods.get(str(address), "")) == holder.name:
            name = self._pods[str(address)]
        return self.machine(name) if name is not None else None

    def beyond(self, _machine: Machine, _packet: Packet) -> None:
        """Say that nobody knows what comes after a machine that gave no answer."""

    def inferred(self, _machine: Machine, _question: Question) -> str:
        """Infer nothing: here everybody is asked."""
        return ""


def trace(
    lab: Lab,
    topology: Topology,
    source: str,
    target: str,
    size: int | None = None,
    version: int | None = None,
    flow: Flow | None = None,
) -> Mapping[str, Any]:
    """Return the way of a packet as a document.

    Args:
        lab: which one.
        topology: of the lab.
        source: the name of a machine or pod.
        target: a name, or an address.
        size: bytes of the packet; None where that is no matter.
        version: of IP; None is that of the target where it is an address, and 4 otherwise.
        flow: what the packet carries; None where that is no matter.

    Raises:
        Refused: when a name is not known, or has no address.
    """
    literal = (6 if ":" in target else 4) if ctl_trace.is_address(target) else None
    version = literal or version or 4
    everybody = Everybody(lab, topology, version)
    start = everybody.machine(source)
    address = target if ctl_trace.is_address(target) else everybody.address(everybody.machine(target).name)
    own = everybody.address(source)
    if address is None or own is None:
        raise Refused(f"{target if address is None else source} has no address of IPv{version}; see `felix-lab status`")
    carried = documents.flow(flow.of_version(version) if flow is not None else None)
    question = {"destination": address, "source": own, "size": size, **carried}
    packet = documents.read_question({"packet": question}).packet
    found = walk.follow(start, Question(packet), everybody)
    ends = {"source": {"name": source, "address": own}, "destination": {"name": target, "address": address}}
    return {**ends, "size": size, **carried, **documents.trace(found)}
