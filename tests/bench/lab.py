"""A whole lab measured: start until in sync, a pod until it is reached, memory, idle CPU, repair of a deleted route."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from figures import RUNS, tell

from felix_py.lab import faults, interrupts, lifecycle, machines, main, matrix, network, plan, pods, state, watching
from felix_py.lab.matrix import End
from felix_py.lab.pods import Pod
from felix_py.lab.state import Lab
from felix_py.lab.topology import Topology

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS") or 20)
SOURCE = main.default_topology()


@contextmanager
def lab_up() -> Iterator[tuple[Lab, Topology, lifecycle.Timings]]:
    lab, topology = state.lab("bench"), state.read_topology(SOURCE)
    with interrupts.deferring(), state.only_one(lab):
        try:
            timings = lifecycle.up(lab, SOURCE, topology)
            with interrupts.allowed():
                yield lab, topology, timings
        finally:
            lifecycle.down(lab)


def pod_to_first_ping(lab: Lab, topology: Topology, number: int) -> float:
    """Return the seconds from the runtime's ADD until the other rack's ping is answered."""
    node, far = topology.nodes[0], topology.nodes[-1]
    pod = Pod(f"bench-pod{number}", str(node.name))
    subprocess.run(["ip", "netns", "add", lab.namespace(pod.name)], check=True)
    try:
        source = End("far", lab.namespace(far.pod_names[0]), lab.pod_addresses()[far.pod_names[0]], "")
        start = time.monotonic()
        pods.attach(lab, [pod])
        target = End(pod.name, lab.namespace(pod.name), lab.pod_addresses()[pod.name], "")
        while (source.name, target.name) not in matrix.ping_all([source, target]).seconds:
            pass
        return time.monotonic() - start
    finally:
        pods.detach(lab, [pod])
        subprocess.run(["ip", "netns", "del", lab.namespace(pod.name)], check=True)


def processes(lab: Lab, node: str) -> list[int]:
    """Return agent and ExaBGP of a node."""
    agent = machines.daemon(lab.of_node(node))
    return [process for process in (agent, faults.exabgp_or_none(lab, node)) if process is not None]


def proportional_mebibytes(process: int) -> float:
    """Return the process's PSS: what it has alone, and its share of what it has together with others."""
    rollup = Path("/proc", str(process), "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024


def resident_mebibytes(process: int) -> float:
    status = Path("/proc", str(process), "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def cpu_seconds(process: int) -> float:
    fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def repair(lab: Lab, topology: Topology) -> float:
    """Return the milliseconds, between the kernel's own events, that a deleted route was away."""
    node, prefix = topology.nodes[0].name, str(topology.nodes[-1].blocks[0])
    with watching.running(watching.route_monitor(lab, node)) as monitor:
        monitor.wait_for_netlink()
        network.run(lab, node, plan.NoRoute(IPv4Network(prefix)))
        lifecycle.wait(lab, lambda: [] if prefix in shown(lab, node) else [f"{node}: no {prefix}"], 5.0)
        found = watching.repair_milliseconds(watching.route_events(monitor.stop()), prefix)
    assert found is not None
    return found


def shown(lab: Lab, node: str) -> str:
    command = ["ip", "-n", lab.namespace(node), "route", "show", "proto", "80"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def bench() -> bool:
    kept = []
    starts = []
    for run in range(RUNS):
        with lab_up() as (lab, topology, timings):
            starts.append(timings.converged)
            if run < RUNS - 1:
                continue
            kept.append(tell("lab: start to in sync, four nodes", starts, "s", 5.0))
            kept.append(measured(lab, topology))
    return all(kept)


def measured(lab: Lab, topology: Topology) -> bool:
    """Take the figures of a lab that is up."""
    adds = [pod_to_first_ping(lab, topology, number) * 1000 for number in range(RUNS)]
    repairs = [repair(lab, topology) for _ in range(RUNS)]
    names = [str(node.name) for node in topology.nodes]
    before = {process: cpu_seconds(process) for name in names for process in processes(lab, name)}
    time.sleep(IDLE_SECONDS)
    idle = [
        100 * sum(cpu_seconds(process) - before[process] for process in processes(lab, name)) / IDLE_SECONDS
        for name in names
    ]
    resident = [sum(map(resident_mebibytes, processes(lab, name))) for name in names]
    proportional = [sum(map(proportional_mebibytes, processes(lab, name))) for name in names]
    kept = [
        tell("lab: pod ADD to first ping from the other rack", adds, "ms", 50.0),
        tell("lab: repair of a deleted route", repairs, "ms", 100.0),
        tell("lab: resident memory of agent and ExaBGP (RSS)", resident, "MiB", 110.0),
        tell("lab: their own share of memory (PSS)", proportional, "MiB", 110.0),
        tell("lab: idle CPU of agent and ExaBGP", idle, "%", 1.0),
    ]
    return all(kept)


if __name__ == "__main__":
    sys.exit(0 if bench() else 1)
