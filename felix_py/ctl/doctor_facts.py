"""What `felixctl doctor` looks at: facts of the host and the network namespace that it runs in, as one value."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any, NamedTuple

from felix_py.ctl import doctor_files, tunnel_probe
from felix_py.ctl.tunnel_probe import Probe
from felix_py.kernel import filter_table, ownership, sysctl
from felix_py.kernel.base_chains import Chain, chains_of
from felix_py.kernel.guard import Guard
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.objects import KernelRefused, Link
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.trace import encapsulations

LISTENING = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it, include/net/tcp_states.h."""

PARAMETERS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/neigh/default/gc_thresh3",
)
OF_POD = ("net/ipv4/conf/{}/proxy_arp", "net/ipv4/conf/{}/forwarding")


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the checks judge.

    Attributes:
        status: what the agent says of itself; None where none answers.
        unreachable: why none does.
        parameters: path below /proc/sys to value.
        links: interfaces by name; empty where they could not be listed.
        routed: prefixes of IPv4 routes as /proc/net/route has them, (destination, mask) in hexadecimal.
        chains: base chains of all tables of nftables, those of iptables-nft among them.
        table: whether the table of ours is there.
        nftables: why nftables could not be asked; None where it could.
        unguarded: interfaces of pods at which neither our programs nor our table look at what they send; None where the
            kernel does not tell whoever asks.
        legacy: tables of the old iptables.
        listeners: who listens on TCP port 179 here, as `process 42 (bird)`.
        programs: other programs in this network namespace, name to process.
        nodes: all nodes, as the agent knows them.
        tunnels: the tunnels of this node, as `felixctl tunnels` has them.
        probes: what passes to other nodes.
        unprobed: why nothing was sent to other nodes; None where it was.
        drivers: which drivers of tunnels this kernel offers.
        neighbours: entries of the IPv4 neighbour table.
        descriptors: files that the agent has open, and how many it may.
        free: bytes that are left to each of the agent's folders that is there.
        cni: configurations of container runtimes in their order, each with the plugins that it names.
        plugin: ours is where runtimes look for it.
        network_manager, networkd: the settings of these programs, line by line.
    """

    status: Mapping[str, Any] | None = None
    unreachable: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    routed: frozenset[tuple[str, str]] = frozenset()
    chains: tuple[Chain, ...] = ()
    table: bool = False
    nftables: str | None = None
    legacy: tuple[str, ...] = ()
    listeners: Mapping[int, str] = field(default_factory=dict)
    programs: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[Mapping[str, Any], ...] = ()
    tunnels: tuple[Mapping[str, Any], ...] = ()
    probes: tuple[Probe, ...] = ()
    unprobed: str | None = None
    drivers: frozenset[str] = frozenset()
    neighbours: int = 0
    descriptors: tuple[int, int] | None = None
    free: Mapping[str, int] = field(default_factory=dict)
    cni: tuple[tuple[str, tuple[str, ...]], ...] = ()
    plugin: bool = False
    network_manager: tuple[str, ...] = ()
    networkd: tuple[str, ...] = ()
    unguarded: tuple[str, ...] | None = ()

    @property
    def here(self) -> Mapping[str, Any] | None:
        """This node, among all nodes."""
        return next((each for each in self.nodes if each["here"]), None)


class Answers(NamedTuple):
    """What the agent says: documents; without one, why not."""

    status: Mapping[str, Any] | None = None
    nodes: tuple[Mapping[str, Any], ...] = ()
    tunnels: tuple[Mapping[str, Any], ...] = ()
    unreachable: str = ""


def gather(said: Answers, *, probing: bool = True, port: int = 179) -> Facts:
    """Look at everything once.

    Args:
        said: by the agent.
        probing: send packets to other nodes.
        port: where this node listens for BGP.
    """
    status = said.status
    links = _links()
    pods = [name for name in links if name.startswith("cali")]
    chains, table, refused = _nftables()
    return Facts(
        status,
        said.unreachable,
        sysctl.read([*PARAMETERS, *(path.format(pod) for path in OF_POD for pod in pods)]),
        links,
        frozenset(_routed()),
        chains,
        table,
        refused,
        tuple(_lines("/proc/net/ip_tables_names")),
        _listeners(port),
        dict(_programs()),
        said.nodes,
        said.tunnels,
        *_probes(said, probing=probing),
        drivers=frozenset(doctor_files.drivers()),
        neighbours=max(0, len([*_lines("/proc/net/arp")]) - 1),
        descriptors=doctor_files.descriptors(status["pid"]) if status is not None else None,
        free=dict(doctor_files.free()),
        cni=tuple(doctor_files.cni()),
        plugin=doctor_files.PLUGIN.exists(),
        network_manager=tuple(doctor_files.settings(doctor_files.NETWORK_MANAGER)),
        networkd=tuple(doctor_files.settings(doctor_files.NETWORKD)),
        unguarded=_unguarded(links, chains),
    )


def _probes(said: Answers, *, probing: bool) -> tuple[tuple[Probe, ...], str | None]:
    """Send probes through each tunnel to the nodes behind it."""
    if not probing:
        return (), "no packet was sent to other nodes, as --no-probe asks"
    names = {ip_interface(each).ip: row["name"] for row in said.nodes for each in row["addresses"]}
    found: list[Probe] = []
    for row in said.tunnels:
        kind = encapsulations.of_device(row["device"])
        if row["address"] is None or kind is None or kind.name != "ipip":
            continue
        nodes = [IPv4Address(each["node"]) for each in row["remotes"] if each["prefixes"]]
        named = {each: names.get(each, str(each)) for each in nodes}
        try:
            found += tunnel_probe.probe(IPv4Address(row["local"]), IPv4Address(row["address"]), row["mtu"], named)
        except PermissionError:
            return (), "packets of one's own making need CAP_NET_RAW: run as root"
    return tuple(found), None


def _links() -> dict[str, Link]:
    wire = Rtnetlink()
    try:
        return {link.name: link for link in wire.dump_links()}
    finally:
        wire.close()


def _nftables() -> tuple[tuple[Chain, ...], bool, str | None]:
    nftables = Nftables()
    try:
        ruleset = nftables.ruleset()
    except KernelRefused as refused:
        return (), False, str(refused)
    finally:
        nftables.close()
    return tuple(chains_of(ruleset)), f"table {filter_table.NAME} {{" in ruleset, None


def _unguarded(links: Mapping[str, Link], chains: tuple[Chain, ...]) -> tuple[str, ...] | None:
    if any((each.table, each.hook) == (filter_table.NAME, "prerouting") for each in chains):
        return ()
    try:
        with GuardPrograms() as programs:
            guard = programs.read(links) or Guard()
    except KernelRefused:
        return None
    pods = (name for name in links if ownership.is_workload_device(name))
    return tuple(name for name in pods if name not in guard.sources and name not in guard.refused)


def _routed() -> Iterator[tuple[str, str]]:
    for line in [*_lines("/proc/net/route")][1:]:
        words = line.split()
        yield words[1], words[7]


def _lines(path: str) -> Iterable[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, PermissionError):  # a kernel without it, or not for us: then there is nothing to judge
        return ()


def _listeners(port: int) -> dict[int, str]:
    """Find who listens on a TCP port of this network namespace, by process ID; 0 is one that cannot be found."""
    inodes = set()
    for line in (*_lines("/proc/net/tcp"), *_lines("/proc/net/tcp6")):
        words = line.split()
        if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{words[9]}]")
    found = {number: f"process {number} ({name})" for number, name in _processes() if inodes & _open_files(number)}
    return found if found or not inodes else {0: "a process that cannot be found from here"}


def _processes() -> Iterator[tuple[int, str]]:
    """Yield process ID and name of whatever runs in this network namespace."""
    here = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is not ours to look at
            if (process / "ns/net").readlink() == here:
                yield int(process.name), (process / "comm").read_text(encoding="utf-8").strip()


def _open_files(process: int) -> set[str]:
    found = set()
    with suppress(OSError):  # as above
        for descriptor in Path("/proc", str(process), "fd").iterdir():
            with suppress(OSError):  # it was closed while we looked
                found.add(str(descriptor.readlink()))
    return found


def _programs() -> Iterator[tuple[str, int]]:
    for number, name in _processes():
        yield name, number
