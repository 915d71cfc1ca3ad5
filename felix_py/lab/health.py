"""What a lab's machines say of themselves, and what is still missing until everybody reaches everybody."""

import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from bgp.rib import in_order
from felix_py.ctl import client
from felix_py.lab import rendering, routing
from felix_py.lab.state import Lab
from felix_py.lab.topology import LabNode, Router, Topology
from felix_py.model import IPNetwork

Document = dict[str, Any]


def ask(lab: Lab, node: str, resource: str) -> Document:
    """Return a document of a node's agent.

    Raises:
        client.Unreachable: when the agent does not answer.
    """
    return client.get(lab.of_node(node) / "run" / "agent.sock", resource)


def not_started(lab: Lab, topology: Topology) -> list[str]:
    """Say for each node why no pod can be attached there yet; empty when one can everywhere."""
    return [sentence for node in topology.nodes if (sentence := not_in_sync(lab, node))]


def not_in_sync(lab: Lab, node: LabNode) -> str | None:
    """Say why no pod can be attached on a node yet; None when one can."""
    try:
        status = ask(lab, node.name, "status")
    except client.Unreachable as problem:
        return f"{node.name}: {problem}"
    if not status["inSync"]:
        return f"{node.name} is not in sync"
    return None if (lab.of_node(node.name) / "run" / "cni.sock").exists() else f"{node.name} serves no CNI yet"


def not_converged(lab: Lab, topology: Topology) -> list[str]:
    """Say what is missing until every session stands and every route is everywhere; empty when nothing is."""
    found = [sentence for node in topology.nodes for sentence in node_problems(lab, topology, node)]
    if not found:  # a router knows nothing before its nodes do
        found = [sentence for router in topology.routers for sentence in router_problems(lab, topology, router)]
    return found


def node_problems(lab: Lab, topology: Topology, node: LabNode) -> Iterator[str]:
    """Yield what a node lacks, one sentence each."""
    try:
        status, routes = ask(lab, node.name, "status"), ask(lab, node.name, "routes")
    except client.Unreachable as silence:
        yield f"{node.name}: {silence}"
        return
    bgp = status["bgp"]
    if bgp["established"] < max(bgp["configured"], sessions(topology, node)):
        yield f"{node.name} has {bgp['established']} of {bgp['configured']} sessions"
    for problem in status["problems"]:
        yield f"{node.name}: {problem}"
    if topology.bgp.node_to_node_mesh or topology.reflectors or not topology.speaks_bgp:
        installed = {route["prefix"] for route in routes["routes"] if route["state"] == "installed"}
        for block in sorted(_blocks(topology) - installed):
            yield f"{node.name} has no route to {block}"


def sessions(topology: Topology, node: LabNode) -> int:
    """Return how many sessions a node should hold."""
    if not topology.speaks_bgp:
        return 0
    routers = sum(len(tuple(rendering.sessions(router, node))) for router in topology.routers)
    others = [other for other in topology.nodes if other != node] if topology.bgp.node_to_node_mesh else []
    return routers + len(topology.reflectors) + sum(min(len(node.ends), len(other.ends)) for other in others)


def _blocks(topology: Topology) -> set[str]:
    return {str(block) for node in topology.nodes for block in node.blocks}


def router_problems(lab: Lab, topology: Topology, router: Router) -> Iterator[str]:
    """Yield the blocks of its neighbours, and networks beyond them, that a router has no route to."""
    if not topology.speaks_bgp:
        return
    for prefix in sorted(awaited(topology, router) - learned(lab, router), key=in_order):
        yield f"{router.name} has no route to {prefix}"


def awaited(topology: Topology, router: Router) -> set[IPNetwork]:
    """Return what a router learns by BGP: blocks of its nodes, and from other routers theirs and their networks."""
    others = [other for other, _ in topology.between_routers(router)]
    blocks = {
        block
        for each in (router, *others)
        for node in rendering.neighbours(topology, each)
        for block in node.blocks
    }  # fmt: skip
    own = {address.network for address in router.addresses.values()}
    return blocks | {address.network for other in others for address in other.addresses.values()} - own


def learned(lab: Lab, router: Router) -> set[IPNetwork]:
    """Return the prefixes of both versions of IP that a router's daemon put into its kernel."""
    found: set[IPNetwork] = set()
    protocol = routing.DAEMONS[router.daemon].protocol
    for family in ("-4", "-6"):
        command = ["ip", family, "-n", lab.namespace(router.name), "-json", "route", "show", "proto", protocol]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = json.loads(answer.stdout or "[]") if answer.returncode == 0 else []
        found |= {ip_network(route["dst"]) for route in rows if route["dst"] != "default"}
    return found
