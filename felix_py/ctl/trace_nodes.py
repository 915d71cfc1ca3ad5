"""Who is on the way of a packet, as one node's agent knows it: nodes by the datastore, asked by the user's command."""

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from felix_py.ctl import client
from felix_py.ctl.trace import ask, is_address
from felix_py.kernel.flow import Flow
from felix_py.model import IPAddress
from felix_py.trace import documents, walk
from felix_py.trace.documents import Unreadable
from felix_py.trace.walk import NotAsked
from felix_py.trace.words import Answer, Leg, Machine, Packet, Question, Verdict

DEADLINE = 20.0
"""Seconds for one call of the user's command; ssh may have to shake hands first."""

GATEWAYS = {4: IPv4Address("169.254.1.1"), 6: ip_address("fe80::ecee:eeff:feee:eeee")}
"""To which pods hand their packets."""


class End(NamedTuple):
    """One end of a trace.

    Attributes:
        node: where it is; None where nobody knows.
        pod: it is a pod.
    """

    name: str
    address: IPAddress
    node: str | None
    pod: bool


class Nodes:
    """The nodes that one agent knows; a `walk.Asker`.

    Args:
        path: the agent's socket.
        command: how felixctl is run on another node, with {node} and {address} in it; None asks no other.
    """

    def __init__(self, path: Path, command: str | None) -> None:
        self._path = path
        self._command = command
        document = client.get(path, "nodes")
        self.here = str(document["node"])
        self._rows = {row["name"]: row for row in document["nodes"]}
        self._pods = document["pods"]

    # --- names

    def end(self, text: str, version: int | None = None) -> End:
        """Return what a user calls by this text: an address, a node, a pod with its namespace or without.

        Args:
            text: as it was given.
            version: of IP, where the other end leaves no choice.

        Raises:
            NotFound: when this node knows nothing of that name.
        """
        if is_address(text):
            address = ip_address(text)
            name, node, pod = self._of_address(address)
            return End(name or text, address, node, pod)
        addresses: list[tuple[IPAddress, str, bool]] = []
        if text in self._rows:
            addresses = [(each, text, False) for each in self.addresses(text)]
        for pod in self._pods:
            if text in (pod["name"], pod["name"].rpartition("/")[2]):
                addresses += [(ip_address(each), pod["node"], True) for each in pod["addresses"]]
        for address, node, is_pod in addresses:
            if version in (None, address.version):
                return End(text, address, node, is_pod)
        raise client.NotFound(
            f"{self.here} knows no pod or node named {text}; of pods it knows its own: give the address of others"
        )

    def addresses(self, node: str) -> list[IPAddress]:
        """Return the addresses of a node, IPv4 first."""
        return [ip_interface(each).ip for each in self._rows[node]["addresses"]]

    def _of_address(self, address: IPAddress) -> tuple[str | None, str | None, bool]:
        for node in self._rows:
            if address in self.addresses(node):
                return node, node, False
        for pod in self._pods:
            if str(address) in pod["addresses"]:
                return pod["name"], pod["node"], True
        return None, self._holder(address), True

    def _holder(self, address: IPAddress) -> str | None:
        """Return the node whose block an address is in."""
        rows = self._rows.values()
        return next((row["name"] for row in rows for each in row["blocks"] if address in ip_network(each)), None)

    # --- the walk

    def ask(self, machine: Machine, question: Question) -> Answer:
        """Ask this node by its socket and others by the command.

        Raises:
            NotAsked: when it cannot be asked.
        """
        if machine.kind == "pod":
            return Answer((Leg(question.packet, Verdict.DELIVERED, f"the node hands it to {machine.name}"),))
        if machine.kind != "node":
            raise NotAsked(f"{machine.name} is no node of this cluster")
        document = documents.question(question)
        try:
            found = ask(self._path, document) if machine.name == self.here else self._elsewhere(machine.name, document)
            return documents.read_answer(found)
        except (client.Unreachable, Unreadable, ValueError) as problem:
            raise NotAsked(f"{machine.name} gave no answer: {problem}") from problem

    def _elsewhere(self, node: str, question: Mapping[str, Any]) -> dict[str, Any]:
        if self._command is None:
            raise NotAsked(f"{node} is another node; --ask says how to ask it")
        address = str(self.addresses(node)[0])
        words = [each.replace("{node}", node).replace("{address}", address) for each in shlex.split(self._command)]
        try:
            done = subprocess.run(
                [*words, "felixctl", "trace", "--hop"],
                input=json.dumps(question),
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotAsked(f"{node} gave no answer: {error}") from error
        if done.returncode != 0:
            raise NotAsked(f"{node} gave no answer: {' '.join(done.stderr.split()) or done.returncode}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def whose(self, address: IPAddress, holder: Machine) -> Machine | None:
        """Return who has an address: a node, a pod of the one that hands it on, or a router that we do not know."""
        name, node, pod = self._of_address(address)
        if pod and node == holder.name:
            return Machine(name or str(address), "pod")
        if node is not None and not pod:
            return Machine(node, "node")
        return Machine(str(address), "router")

    def beyond(self, machine: Machine, packet: Packet) -> tuple[Machine, IPAddress] | None:
        """Return the node that has the destination, or whose block has it."""
        _, node, _ = self._of_address(packet.destination)
        if machine.kind == "node" or node is None:
            return None
        own = [each for each in self.addresses(node) if each.version == packet.destination.version]
        return (Machine(node, "node"), own[0]) if own else None

    def inferred(self, machine: Machine, question: Question) -> str:
        """Say what another node or router probably does."""
        packet = question.packet.inner or question.packet
        if machine.kind == "node":
            block = next(
                (each for each in self._rows[machine.name]["blocks"] if packet.destination in ip_network(each)), ""
            )
            unwraps = "takes it out of the tunnel and " if question.packet.inner else ""
            return f"Inferred: it {unwraps}has block {block}, where {packet.destination} is" if block else ""
        return f"Inferred: it routes {question.packet.source} to {question.packet.destination}"


def trace(
    path: Path, ends: Sequence[str], size: int | None, command: str | None, flow: Flow | None = None
) -> dict[str, Any]:
    """Return the way of a packet as a document.

    Args:
        path: the socket of the agent whose node it begins at.
        ends: [SRC] DST.
        size: bytes of the packet; None where that is no matter.
        command: how other nodes are asked; None asks none.
        flow: what the packet carries; None where that is no matter.

    Raises:
        NotFound: when a name is not known.
        Refused: when the packet cannot begin where it should.
    """
    nodes = Nodes(path, command)
    destination = nodes.end(ends[-1])
    source = nodes.end(ends[0] if len(ends) > 1 else nodes.here, destination.address.version)
    if source.node is None or (source.node != nodes.here and command is None):
        where = f"is on {source.node}" if source.node else "is no pod or node"
        raise client.Refused(
            f"{ends[0]} {where}, and a trace begins here, on {nodes.here}; run it there, or give --ask"
        )
    flow = flow.of_version(destination.address.version) if flow is not None else None
    packet = Packet(source.address if len(ends) > 1 else None, destination.address, size=size, flow=flow)
    question = Question(packet, GATEWAYS[destination.address.version] if source.pod else None)
    found = walk.follow(Machine(source.node, "node"), question, nodes)
    return {
        "source": {"name": source.name, "address": str(source.address)},
        "destination": {"name": destination.name, "address": str(destination.address)},
        "size": size,
        **documents.flow(flow),
        **documents.trace(found),
    }
