"""The checks of `felixctl doctor` on what else lives on a host: addresses, tables' limits, disks, network managers."""

from ipaddress import ip_interface, ip_network
from pathlib import Path

from felix_py.ctl import doctor_files
from felix_py.ctl.doctor_facts import Facts
from felix_py.ctl.doctor_findings import Finding, State, ok, skipped
from felix_py.kernel import ownership
from felix_py.model import IPNetwork
from felix_py.trace import encapsulations

NEARLY_FULL = 0.8
"""Share of a limit from which on something will soon be refused."""

ROOM = 16 << 20
"""Bytes that the state directory should have free: journals and allocations are a tenth of it."""

OWN = (ownership.WORKLOAD_PREFIX, *(name for each in encapsulations.TABLE.values() for name in each.devices.values()))
"""Interfaces of ours, whose addresses are pods' by intention."""


def node_address(facts: Facts) -> Finding:
    """Look whether the address of this node's resource is on an interface, with that mask."""
    if facts.here is None:
        return skipped("no agent says what this node's address is")
    if not facts.here["addresses"]:
        name = facts.here["name"]
        return Finding(State.FAILED, f"node {name} has no address", f"give Node {name} a spec.bgp.ipv4Address")
    found = {each for link in facts.links.values() for each in link.addresses}
    for wanted in facts.here["addresses"]:
        if wanted in found:
            continue
        address = wanted.split("/")[0]
        other = next((each for each in found if each.split("/")[0] == address), None)
        if other is None:
            return Finding(
                State.FAILED,
                f"no interface has {wanted}, the address of this node",
                f"ip address add {wanted} dev UPLINK, or correct the Node resource",
            )
        return Finding(
            State.WARNING,
            f"the node's address is {wanted} by its resource and {other} here: its subnet is judged wrongly",
            "give the Node resource the mask that the interface has",
        )
    return ok(f"{', '.join(facts.here['addresses'])} is on an interface")


def overlaps(facts: Facts) -> Finding:
    """Look whether a network of this host lies where pods' addresses are."""
    blocks = [ip_network(each) for row in facts.nodes for each in row["blocks"]]
    for name, link in facts.links.items():
        for text in () if name.startswith(OWN) else link.addresses:
            network = ip_interface(text).network
            if block := next((each for each in blocks if _overlap(each, network)), None):
                return Finding(
                    State.FAILED,
                    f"{network} of {name} and {block}, a block of pods, overlap: one hides the other",
                    "move the pool (a second IPPool, the old one disabled, pods anew), or renumber the interface",
                )
    return ok("no network of this host lies in the pods' blocks")


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def forwarding6(facts: Facts) -> Finding:
    """Look whether a node with an IPv6 block forwards IPv6."""
    blocks = facts.here["blocks"] if facts.here is not None else []
    if not any(":" in each for each in blocks):
        return skipped("this node has no block of IPv6, or no agent says so")
    if facts.parameters.get("net/ipv6/conf/all/forwarding") != "1":
        return Finding(
            State.FAILED,
            "net.ipv6.conf.all.forwarding is 0, so that this host routes IPv6 for nobody",
            "the agent sets it; where /proc/sys is read-only: sysctl -w net.ipv6.conf.all.forwarding=1 on the host",
        )
    return ok("net.ipv6.conf.all.forwarding is 1")


def neighbours(facts: Facts) -> Finding:
    """Look how full the table of neighbours is: every pod of this node needs an entry."""
    most = int(facts.parameters.get("net/ipv4/neigh/default/gc_thresh3", "0"))
    if not most:
        return skipped("this network namespace does not tell the limit of its neighbour table")
    if facts.neighbours > NEARLY_FULL * most:
        return Finding(
            State.FAILED,
            f"{facts.neighbours} of {most} neighbours are known: new pods will soon not be reached",
            f"sysctl -w net.ipv4.neigh.default.gc_thresh3={most * 4} net.ipv4.neigh.default.gc_thresh2={most * 2}",
        )
    return ok(f"{facts.neighbours} of {most} neighbours are known")


def descriptors(facts: Facts) -> Finding:
    """Look how many files the agent has open."""
    if facts.descriptors is None:
        return skipped("no agent runs here, or its process may not be looked at")
    used, most = facts.descriptors
    if used > NEARLY_FULL * most:
        return Finding(
            State.FAILED,
            f"the agent has {used} of {most} files open: it will soon take no calls",
            "raise LimitNOFILE of its service, and report what `ls -l /proc/PID/fd` shows",
        )
    return ok(f"the agent has {used} of {most} files open")


def disk(facts: Facts) -> Finding:
    """Look whether there is room for what the agent writes down."""
    for folder, left in facts.free.items():
        if left < ROOM:
            return Finding(
                State.FAILED,
                f"{folder} has {left >> 10} kB left: {doctor_files.FOLDERS[folder]}",
                f"free some space: `du -x {Path(folder).parent} | sort -n | tail`, or journalctl --vacuum-size=200M",
            )
    if not facts.free:
        return skipped(f"{' and '.join(doctor_files.FOLDERS)} are not there")
    return ok(", ".join(f"{folder} has {left >> 20} MB left" for folder, left in facts.free.items()))


def cni(facts: Facts) -> Finding:
    """Look which plugin the container runtime takes: the first file by name."""
    if not facts.cni:
        return skipped("/etc/cni/net.d has no configuration")
    first, types = facts.cni[0]
    if "felix-cni" not in types:
        return Finding(
            State.FAILED,
            f"/etc/cni/net.d/{first} comes first and names {', '.join(types) or 'no plugin'}: pods are not ours",
            "remove it, or give ours a name before it, as 00-felix.conflist",
        )
    if not facts.plugin:
        return Finding(
            State.FAILED,
            f"/etc/cni/net.d/{first} names felix-cni, and /opt/cni/bin/felix-cni is not there",
            "copy felix-cni to /opt/cni/bin",
        )
    return ok(f"{first} names felix-cni, which is there")


def network_manager(facts: Facts) -> Finding:
    """Look whether NetworkManager keeps its hands off pods' interfaces."""
    if "NetworkManager" not in facts.programs:
        return ok("no NetworkManager runs here")
    if not any("unmanaged-devices" in line and "cali" in line for line in facts.network_manager):
        return Finding(
            State.WARNING,
            "NetworkManager runs here and was not told to leave interfaces named cali* and tunl0 alone",
            "write to /etc/NetworkManager/conf.d/felix.conf: [keyfile] "
            "unmanaged-devices=interface-name:cali*;interface-name:tunl0; and nmcli general reload",
        )
    return ok("NetworkManager leaves pods' interfaces alone")


def networkd(facts: Facts) -> Finding:
    """Look whether systemd-networkd leaves routes of others where they are."""
    if "systemd-network" not in facts.programs:
        return ok("no systemd-networkd runs here")
    settings = dict(line.replace(" ", "").split("=", 1) for line in facts.networkd if "=" in line)
    if settings.get("ManageForeignRoutes", "yes").lower() not in ("no", "false", "0", "off"):
        return Finding(
            State.WARNING,
            "systemd-networkd runs here and removes routes of others when it starts anew; the agent puts them back",
            "write to /etc/systemd/networkd.conf.d/felix.conf: [Network] ManageForeignRoutes=no; and restart it",
        )
    return ok("systemd-networkd leaves routes of others alone")
