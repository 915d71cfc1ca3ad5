"""What `felixctl doctor` looks at: facts of the host and the network namespace that it runs in, as one value."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from felix_py.kernel import filter_table, sysctl
from felix_py.kernel.base_chains import Chain, chains_of
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.objects import KernelRefused, Link
from felix_py.kernel.rtnetlink import Rtnetlink

LISTENING = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it, include/net/tcp_states.h."""

PARAMETERS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
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
        legacy: tables of the old iptables.
        listeners: who listens on TCP port 179 here, as `process 42 (bird)`.
        programs: other programs in this network namespace, name to process.
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


def gather(status: Mapping[str, Any] | None, unreachable: str, port: int = 179) -> Facts:
    """Look at everything once.

    Args:
        status: the agent's answer; None where there is none.
        unreachable: why not.
        port: where this node listens for BGP.
    """
    links = _links()
    pods = [name for name in links if name.startswith("cali")]
    chains, table, refused = _nftables()
    return Facts(
        status,
        unreachable,
        sysctl.read([*PARAMETERS, *(path.format(pod) for path in OF_POD for pod in pods)]),
        links,
        frozenset(_routed()),
        chains,
        table,
        refused,
        tuple(_lines("/proc/net/ip_tables_names")),
        _listeners(port),
        dict(_programs()),
    )


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
