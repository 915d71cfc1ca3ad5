"""The pods that the kernel knows: what their interfaces say of them, and the routes that lead there."""

from felix_py.kernel import link_changes, links, ownership, route_codec
from felix_py.kernel.dump import Reader
from felix_py.kernel.objects import MAIN_TABLE
from felix_py.kernel.wire import Family
from felix_py.ledger import Attachment, from_note
from felix_py.model import IPAddress


def living_pods() -> tuple[Attachment, ...]:
    """Return what the kernel knows of pods: each `cali` interface, its note, and the addresses routed to it."""
    with links.open_socket() as sock:
        found = [link for link in links.listing(sock) if ownership.is_workload_device(link.name)]
    seen = [link for link in found if link.alias != link_changes.DOOMED]
    names = {link.index: link.name for link in seen}
    routed: dict[str, list[IPAddress]] = {}
    with Reader() as reader:
        bodies = [body for family in Family for body in reader.routes(family, MAIN_TABLE)] if seen else []
    for key, route in filter(None, (route_codec.decode(body, names) for body in bodies)):
        if route.device in names.values() and key.dst.num_addresses == 1:
            routed.setdefault(route.device or "", []).append(key.dst.network_address)
    return tuple(from_note(link.alias, link.name, routed.get(link.name, ())) for link in seen)
