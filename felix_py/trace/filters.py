"""Which packet filter ends a packet: our own table by its sets, those of others by such rules as can be understood.

Rules of others may jump, count, limit and look at connections. A rule whose every word is known here is judged; at the
first other one that could drop the packet, judging ends with a note, for a trace claims nothing that it does not know.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_network
from typing import NamedTuple

from felix_py.kernel import filter_table, ownership
from felix_py.kernel.base_chains import Chain
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard
from felix_py.model import IPAddress
from felix_py.trace import conditions
from felix_py.trace.conditions import Passage, Unknown
from felix_py.trace.words import Packet


class Judgement(NamedTuple):
    """What the filters do: `dropped` says why; None where nothing that is understood drops it, as far as `notes` go."""

    dropped: str | None = None
    notes: tuple[str, ...] = ()


# --- ours


class Pods(NamedTuple):
    """What guards pods' interfaces on this machine, and what it knows.

    Attributes:
        what: its name.
        known: the interfaces of known pods.
        sources: whether a pod may send from an address, by interface and address.
    """

    what: str
    known: Collection[str]
    sources: Callable[[str, IPAddress | None], bool]


def guarding(table: FilterTable | None, guard: Guard | None) -> Pods | None:
    """Return what guards pods' interfaces: our programs, or else our table; None where nothing does."""
    if guard is not None:
        return Pods("our programs", guard.sources, lambda name, source: source in guard.sources.get(name, ()))
    if table is None or filter_table.OF_PODS not in table.rules:
        return None
    known = {each.strip('"') for each in table.elements.get("pods", frozenset())}
    addresses = table.elements.get("pod-addresses", frozenset()) | table.elements.get("pod-addresses6", frozenset())
    return Pods(f"table {filter_table.NAME}", known, lambda name, source: f'"{name}" . {source}' in addresses)


def on_entry(packet: Packet, device: str | None, pods: Pods | None) -> str | None:
    """Say why what guards pods drops what comes in by a pod's interface; None where it does not."""
    if pods is None or device is None or not ownership.is_workload_device(device):
        return None
    if packet.inner is not None:
        return f"pod-encapsulated of {pods.what}: pods may not send tunnel packets"
    if pods.sources(device, packet.source):
        return None
    if device not in pods.known:
        return f"interface-unknown of {pods.what}: {device} is of no known pod"
    return f"pod-spoofed of {pods.what}: {packet.source} is no address of the pod behind {device}"


def on_exit(device: str, pods: Pods | None) -> str | None:
    """Say why what guards pods drops what is forwarded to a pod's interface; None where it does not."""
    if pods is None or not ownership.is_workload_device(device) or device in pods.known:
        return None
    return f"interface-unknown of {pods.what}: {device} is of no known pod"


def on_decapsulation(packet: Packet, table: FilterTable | None) -> str | None:
    """Say why our own table drops a tunnel packet for this machine; None where it does not."""
    if table is None or "chain encapsulated" not in table.rules:
        return None
    suffix = "" if packet.destination.version == 4 else "6"  # noqa: PLR2004 - IP versions
    if str(packet.source) in table.elements.get(f"nodes{suffix}", frozenset()):
        return None
    external = (ip_network(each) for each in table.elements.get(f"external-nodes{suffix}", frozenset()))
    if any(packet.source in each for each in external):
        return None
    return f"tunnel-stranger of table {filter_table.NAME}: {packet.source} is no known node"


# --- those of others

FAMILIES: Mapping[str, Collection[int]] = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
"""Versions of IP whose packets a table sees, by the family that its name begins with."""


def others(passage: Passage, chains: Iterable[Chain]) -> Judgement:
    """Judge by the base chains of others at the passage's hook."""
    notes: list[str] = []
    for chain in chains:
        seen = FAMILIES.get(chain.table.split()[0], ())
        if chain.hook != passage.hook or chain.table == filter_table.NAME:
            continue
        if passage.packet.destination.version not in seen:
            continue
        dropped, note = _chain(passage, chain)
        if dropped is not None:
            return Judgement(dropped, tuple(notes))
        notes += [note] if note else []
    return Judgement(None, tuple(notes))


def _chain(passage: Passage, chain: Chain) -> tuple[str | None, str | None]:
    """Return why a chain drops a packet, or what may be in the way; both None where nothing is."""
    doubt: str | None = None
    for line in chain.lines:
        words = line.split(" comment ", maxsplit=1)[0].split()
        holds = conditions.holds(words, passage)
        verdict = conditions.verdict(words)
        if isinstance(holds, Unknown):
            if verdict in ("drop", "jump") or chain.policy == "drop":
                return None, f"chain {chain} may drop it: `{line}` {holds.why}"
            doubt = doubt or (f"`{line}` {holds.why}" if verdict == "accept" else None)
        elif holds and verdict == "drop":
            # What may have been accepted before cannot be said to be dropped.
            return (
                (None, f"chain {chain} may drop it: {doubt}") if doubt else (f"chain {chain} drops it: `{line}`", None)
            )
        elif holds and verdict == "accept":
            return None, None
    if chain.policy == "drop":
        return f"chain {chain} drops what no rule of it accepts", None
    return None, None
