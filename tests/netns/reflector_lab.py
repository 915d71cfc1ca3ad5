"""A lab with route reflectors: watched under traffic, asked what its reflectors hold, and joined by another node."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml
from pyroute2 import netns

from felix_py.ctl import client
from felix_py.lab import health, machines, network, plan, pods, proofs, rendering, watching
from felix_py.lab.main import default_topology
from felix_py.lab.pods import Pod
from felix_py.lab.state import NODE_MOUNTS, Lab

TOPOLOGY = default_topology().with_name("route-reflectors.yaml")
RR1, RR2 = "172.31.8.11", "172.31.8.12"

JOINED: list[subprocess.Popen[bytes]] = []
"""Supervisors of nodes that joined: they end with the lab, and whoever takes it down waits for them."""


def run(lab: Lab, name: str, *words: str) -> str:
    """Run a command where a machine is; return what it printed."""
    command = [*machines.enter(lab, name), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=machines.environment()).stdout


def established(lab: Lab) -> dict[str, int]:
    """Return how many sessions each reflector holds, as it says itself."""
    bird = run(lab, "rr1", "birdc", "show", "protocols").count("Established")
    frr = json.loads(run(lab, "rr2", "vtysh", "-c", "show bgp neighbors json"))
    states = [each["bgpState"] for each in frr.values() if "bgpState" in each]
    return {"rr1": bird, "rr2": states.count("Established")}


def reflectors_hold_all(lab: Lab) -> bool:
    """Say whether both hold a session with every node, and with each other, and have told each other everything.

    FRR does so a second or two after it has said that the session is up; until then neither can stand in for the other.
    """
    try:
        return set(established(lab).values()) == {len(lab.topology().nodes) + 1} and told_each_other(lab)
    except subprocess.CalledProcessError:
        return False  # one that has just been started does not answer yet


def told_each_other(lab: Lab) -> bool:
    """Say whether each reflector holds what nodes have told it from the other one, too."""
    bird = run(lab, "rr1", "birdc", "show", "route")
    frr = json.loads(run(lab, "rr2", "vtysh", "-c", "show bgp ipv4 unicast json"))["routes"]
    of_nodes = [paths for prefix, paths in frr.items() if prefix.startswith("10.65.")]
    return 0 < bird.count("[node_") <= bird.count("[other_reflector") and all(len(paths) > 1 for paths in of_nodes)


def processes(lab: Lab) -> dict[str, int | None]:
    """Return the daemons of the reflectors."""
    return {name: machines.daemon(lab.of_router(name)) for name in ("rr1", "rr2")}


def bgp(lab: Lab, node: str, what: str) -> list[dict[str, Any]]:
    """Return what a node's agent says of its BGP peers or routes."""
    found: list[dict[str, Any]] = client.get(lab.of_node(node) / "run" / "agent.sock", "bgp", what)[what]
    return found


@contextmanager
def disabled(lab: Lab, *sessions: tuple[str, str]) -> Iterator[None]:
    """Have sessions, each by its node and its peer's address, administratively down for a while."""
    try:
        for node, peer in sessions:
            run(lab, node, "felixctl", "bgp", "disable", peer)
        yield
    finally:
        for node, peer in sessions:
            run(lab, node, "felixctl", "bgp", "enable", peer)


@contextmanager
def nothing_lost(lab: Lab, source: str, target: str) -> Iterator[None]:
    """Ping all the while, 200 packets a second, and watch every node's routes: none is lost, and none moves."""
    watched = [node.name for node in lab.topology().nodes]
    with ExitStack() as stack:
        monitors = {name: stack.enter_context(watching.running(watching.route_monitor(lab, name))) for name in watched}
        for monitor in monitors.values():
            monitor.wait_for_netlink()
        ping = ["ping", "-i", "0.005", lab.pod_addresses()[target]]
        pinging = stack.enter_context(watching.running([*machines.enter(lab, source), *ping]))
        time.sleep(0.3)  # packets before, so that a loss at the very first moment shows
        yield
        time.sleep(0.3)  # and after
        summary = watching.ping_summary(pinging.stop())
        events = {name: watching.route_events(monitor.stop()) for name, monitor in monitors.items()}
    assert summary.transmitted > 100
    proofs.judge(summary, events)


def join(lab: Lab, name: str, **spec: object) -> None:
    """Add a node to a lab that is up: its machine, its resources, its agent, its pods.

    The router in front of it is told of it, since it names its neighbours; the reflectors are not.
    """
    path = lab.directory / "topology.yaml"
    document = yaml.safe_load(path.read_text())
    document["nodes"][name] = spec
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    topology = lab.topology()
    node = topology.node(name)
    assert node is not None
    for each in (name, *node.pod_names):
        netns.create(lab.namespace(each))
    network.run(lab, node.network, plan.Cable(name, plan.UPLINK, lab.namespace(name)))
    network.run(lab, name, *plan.machines(topology)[name])
    directory = lab.of_node(name)
    for folder in NODE_MOUNTS:
        (directory / folder).mkdir(parents=True)
    (directory / "etc" / "resources").mkdir()
    (directory / "etc" / "felix.yaml").write_text(rendering.felix_yaml(topology, node))
    for file, text in rendering.resources(topology).items():
        partial = lab.directory / f".{file}"
        partial.write_text(text)
        partial.replace(lab.directory / "resources" / file)
    for router in topology.routers:
        (lab.of_router(router.name) / "etc" / "bird.conf").write_text(rendering.bird_conf(topology, router))
        run(lab, router.name, "birdc", "configure")
    binds = {directory / folder: target for folder, target in NODE_MOUNTS.items()}
    binds[lab.directory / "resources"] = "/etc/felix/resources"
    JOINED.append(machines._supervise(lab, name, directory, binds, [machines.program("felix-agent"), "run"]))
    deadline = time.monotonic() + 20
    while missing := [each for each in health.not_started(lab, topology) if each.startswith(name)]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.05)
    for each in node.pod_names:
        network.run(lab, each, plan.Set("lo"))
    pods.attach(lab, [Pod(each, name) for each in node.pod_names])
