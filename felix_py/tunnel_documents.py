"""Tunnels as documents: what each should be, how it stands, whom it reaches, what was carried and dropped."""

from collections.abc import Iterable, Mapping

import ipip.tunnel
import vxlan.tunnel
from felix_py.calc.candidates import Candidate
from felix_py.calc.encap import Encapsulation
from felix_py.documents import Document
from felix_py.kernel.objects import RouteKey, Tunnel
from vxlan.tunnel import Vxlan


def tunnel(
    want: Tunnel, have: Tunnel | None, counters: Mapping[str, int], chosen: Mapping[RouteKey, Candidate]
) -> Document:
    """Return a tunnel whole.

    Args:
        want: what it should be.
        have: what it is.
        counters: packets carried and dropped, those with `dropped_` before the reason.
        chosen: the winners of all prefixes, which say what leads into a VXLAN device.
    """
    dropped = {key.removeprefix("dropped_"): count for key, count in counters.items() if key.startswith("dropped_")}
    return {
        "device": want.name,
        "local": str(want.local),
        "address": str(want.address) if want.address else None,
        "mtu": want.mtu,
        "state": _state(want, have),
        **(_of_vxlan(want, chosen) if isinstance(want, Vxlan) else _of_ipip(want)),
        "counters": {key: count for key, count in counters.items() if not key.startswith("dropped_")},
        "dropped": dropped,
    }


def short(want: Tunnel) -> Document:
    """Return what a node's status says of a tunnel."""
    over = vxlan.tunnel.OVERHEAD[want.local.version] if isinstance(want, Vxlan) else ipip.tunnel.OVERHEAD
    return {
        "device": want.name,
        "mtu": want.mtu,
        "overhead": over,
        "address": str(want.address) if want.address else None,
    }


def _state(want: Tunnel, have: Tunnel | None) -> str:
    if have is None:
        return "missing: no such device"
    if isinstance(want, Vxlan) and isinstance(have, Vxlan):
        differing = sorted(vxlan.tunnel.differences(want, have))
    elif isinstance(want, Vxlan) or isinstance(have, Vxlan):
        differing = ["kind"]
    else:
        differing = sorted(ipip.tunnel.differences(want, have))
    return f"differs: {', '.join(differing)}" if differing else "installed"


def _of_ipip(want: ipip.tunnel.Tunnel) -> Document:
    prefixes: dict[str, list[str]] = {str(node): [] for node in sorted(want.allowed)}
    for network, node in sorted(want.routes):
        prefixes.setdefault(str(node), []).append(str(network))
    return {"remotes": [{"node": node, "prefixes": networks} for node, networks in prefixes.items()]}


def _of_vxlan(want: Vxlan, chosen: Mapping[RouteKey, Candidate]) -> Document:
    behind = _behind(chosen.items(), want.name)
    known = sorted(want.forwarding, key=lambda entry: int(entry[1]))
    remotes = [{"node": str(node), "mac": mac, "prefixes": behind.get(str(node), [])} for mac, node in known]
    return {"vni": want.vni, "port": want.port, "mac": want.mac, "remotes": remotes}


def _behind(winners: Iterable[tuple[RouteKey, Candidate]], device: str) -> dict[str, list[str]]:
    """Return the prefixes that are sent into a VXLAN device, by the node that they are sent to."""
    found: dict[str, list[str]] = {}
    for key, winner in winners:
        wrapped = winner.encapsulation is not None and winner.encapsulation.encapsulation is Encapsulation.VXLAN
        if wrapped and winner.route.device == device and winner.next_hop is not None:
            found.setdefault(str(winner.next_hop), []).append(str(key))
    return {node: sorted(prefixes) for node, prefixes in found.items()}
