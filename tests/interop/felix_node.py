"""One node of ours for interop tests: the real felix-agent in a namespace, its resources, and what it answers."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from daemons import Process, until

from bgp.types import IPAddress, IPNetwork
from felix_py import resources
from felix_py.ctl import client

Document: TypeAlias = dict[str, Any]
Row: TypeAlias = Mapping[str, Any]

OWN_AS = 64512
POOL = IPv4Network("10.65.0.0/16")
STARTING = 30.0
"""Seconds until an agent that starts is given up: what it takes to load depends on what else is going on."""


def resource(kind: str, name: str, **spec: object) -> Document:
    """Return a resource; names of fields are those of its spec."""
    return {"apiVersion": resources.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def node(name: str, address: IPAddress, *, mask: int = 24, **bgp: object) -> Document:
    """Return a Node."""
    return resource("Node", name, bgp={"ipv4Address": f"{address}/{mask}", **bgp})


def pool(cidr: IPNetwork = POOL) -> Document:
    """Return an IPPool whose traffic is never encapsulated."""
    return resource("IPPool", f"pool{cidr.version}", cidr=str(cidr), ipipMode="Never")


def block(name: str, cidr: IPNetwork) -> Document:
    """Return the BlockAffinity of a node."""
    words = str(cidr).replace(".", "-").replace(":", "-").replace("/", "-")
    return resource("BlockAffinity", f"{name}-{words}", node=name, cidr=str(cidr), state="confirmed")


def configuration(*, mesh: bool = False, **spec: object) -> Document:
    """Return the BGPConfiguration."""
    return resource("BGPConfiguration", "default", asNumber=OWN_AS, nodeToNodeMeshEnabled=mesh, **spec)


def peer(address: IPAddress | str, asn: int, **spec: object) -> Document:
    """Return a BGPPeer of every node."""
    words = str(address).replace(".", "-").replace(":", "-")
    return resource("BGPPeer", f"peer-{words}", peerIP=str(address), asNumber=asn, **spec)


@dataclass(slots=True)
class FelixNode:
    """The agent of one node.

    Attributes:
        name: of its Node resource, and its namespace's last part.
    """

    name: str
    address: IPv4Address
    namespace: str
    directory: Path
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        self.process = Process(self.namespace, self.directory)
        for folder in ("resources", "run", "state"):
            (self.directory / folder).mkdir(parents=True)

    # --- being told

    def start(self, *documents: Document) -> None:
        """Start the agent, with these resources if any are given, and wait until it is in sync."""
        if documents:
            self.apply(*documents)
        self.process.start(sys.executable, "-m", "felix_py", "run", environment=self._environment())
        until(self._in_sync, f"the agent of {self.name} is in sync", within=STARTING)

    def apply(self, *documents: Document) -> None:
        """Put these resources in place of all others.

        Raises:
            Invalid: where the agent would refuse one.
        """
        for document in documents:
            resources.parse(document, "lab.yaml")
        partial = self.directory / "resources" / ".partial"
        partial.write_text(yaml.safe_dump_all(documents))
        partial.replace(self.directory / "resources" / "lab.yaml")

    def kill(self) -> None:
        """Kill the agent; its ExaBGP follows, since it reads the end of its input."""
        self.process.kill(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the agent as a service manager does."""
        self.process.kill(signal.SIGTERM)

    # --- being asked

    def ask(self, *parts: str, **query: str) -> Document:
        """Ask the local API, as felixctl does."""
        return client.get(self.directory / "run" / "agent.sock", *parts, **query)

    def do(self, *parts: str, **query: str) -> Document:
        """Ask the local API for something to be done, as felixctl does."""
        return client.post(self.directory / "run" / "agent.sock", *parts, **query)

    def felixctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run felixctl against the agent."""
        command = [sys.executable, "-m", "felix_py.ctl.main", "--socket", str(self.directory / "run" / "agent.sock")]
        return subprocess.run([*command, *words], check=False, capture_output=True, text=True)

    def session(self, address: IPAddress) -> Row:
        """Return everything about one session; a peer that is not known yet is Idle."""
        try:
            return self.ask("bgp", "peers", str(address))
        except client.NotFound:
            return {"address": str(address), "state": "not configured", "flaps": 0, "lastError": None}

    def established(self, *addresses: IPAddress) -> bool:
        """Say whether sessions are up."""
        return all(self.session(address)["state"] == "Established" for address in addresses)

    def paths(self, prefix: IPNetwork | None = None, *, of: IPAddress | None = None) -> list[Row]:
        """Return what peers said, with the verdict on each path."""
        query = {"received": str(of)} if of else {}
        rows: list[Row] = self.ask("bgp", "routes", **query)["routes"]
        return [row for row in rows if prefix is None or row["prefix"] == str(prefix)]

    def path(self, prefix: IPNetwork, *, of: IPAddress | None = None) -> Row | None:
        """Return the one path to a prefix, of one peer or of all."""
        rows = self.paths(prefix, of=of)
        return rows[0] if rows else None

    def route(self, prefix: IPNetwork) -> Row | None:
        """Return our route to a prefix with its state, as `felixctl routes` has it."""
        return next(iter(self.ask("routes", prefix=str(prefix))["routes"]), None)

    def kernel(self, prefix: IPNetwork | None = None) -> list[Row]:
        """Return what the kernel has of ours, or its route to one prefix, blackholes left out."""
        words = [
            "ip",
            "-n",
            self.namespace,
            "-j",
            f"-{prefix.version if prefix else 4}",
            "route",
            "show",
            "proto",
            "80",
        ]
        words += ["exact", str(prefix)] if prefix else []
        shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return [row for row in json.loads(shown or "[]") if row.get("type", "unicast") == "unicast"]

    def gateways(self, prefix: IPNetwork) -> set[str]:
        """Return the next hops of our route to a prefix in the kernel."""
        hops = (hop for row in self.kernel(prefix) for hop in row.get("nexthops", [row]))
        return {hop["gateway"] if "gateway" in hop else hop["via"]["host"] for hop in hops}

    def forwards(self, prefix: IPNetwork) -> bool:
        """Say whether the kernel has a route of ours to a prefix."""
        return bool(self.kernel(prefix))

    def descriptors(self) -> int:
        """Return how many files and sockets the agent holds open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    # --- how

    def _environment(self) -> dict[str, str]:
        return {
            "FELIX_NODENAME": self.name,
            "FELIX_RESOURCEDIRECTORY": str(self.directory / "resources"),
            "FELIX_RUNDIRECTORY": str(self.directory / "run"),
            "FELIX_STATEDIRECTORY": str(self.directory / "state"),
            "FELIX_METRICSADDRESS": "none",
        }

    def _in_sync(self) -> bool:
        assert self.process.alive, self.process.log()
        try:
            return bool(self.ask("status")["inSync"])
        except client.Unreachable:
            return False
