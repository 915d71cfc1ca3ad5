"""What the local API answers about one session and about paths; a question that makes no sense gets a sentence."""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

from bgp.exabgp_process import BgpService
from bgp.report import PeerReport
from bgp.types import IPAddress, IPNetwork
from felix_py import bgp_documents, bgp_path_documents
from felix_py.api import Answer

Read = TypeVar("Read")

AN_ADDRESS = "a peer's address, as 172.31.1.12"


def session(speaker: BgpService, address: str) -> PeerReport | Answer:
    """Return the session with a peer, or the answer that says why there is none."""
    wanted = _address("ADDRESS", address)
    if isinstance(wanted, str):
        return 400, {"error": wanted}
    reports = {peer.settings.address: peer for peer in speaker.peers()}
    if wanted not in reports:
        known = ", ".join(map(str, reports)) or "none"
        return 404, {"error": f"no session with {wanted} is configured; configured are {known}"}
    return reports[wanted]


async def peer(speaker: BgpService, address: str) -> Answer:
    """Answer everything about one session, its messages counted at this moment."""
    await speaker.count_messages()
    found = session(speaker, address)
    if isinstance(found, tuple):
        return found
    return 200, bgp_documents.peer(found, speaker.policies(found.settings.address))


def paths(speaker: BgpService, query: Mapping[str, str]) -> Answer:
    """Answer which paths there are.

    Args:
        speaker: which knows them.
        query: `prefix`, `received` and `advertised` (a peer's address), and, each with any value: `best`, `prePolicy`,
            and `withheld`, which adds what the peer is not told.
    """
    wanted = prefix(query["prefix"]) if "prefix" in query else None
    if isinstance(wanted, str):
        return 400, {"error": wanted}
    name = next((each for each in ("received", "advertised") if each in query), None)
    found = session(speaker, query[name]) if name else None
    if isinstance(found, tuple):
        return found
    of = found.settings.address if found else None
    if name == "advertised" and of is not None:
        return _advertised(speaker, of, wanted, withheld="withheld" in query)
    reports = speaker.routes(of, wanted)
    if "prePolicy" in query:
        return 200, {"routes": bgp_path_documents.paths_as_told(reports)}
    return 200, {"routes": bgp_path_documents.paths(each for each in reports if each.best or "best" not in query)}


def _advertised(speaker: BgpService, peer: IPAddress, wanted: IPNetwork | None, *, withheld: bool) -> Answer:
    rows = bgp_path_documents.advertised(speaker.advertised(peer, wanted))
    rows += bgp_path_documents.advertised(speaker.withheld(peer, wanted)) if withheld else []
    return 200, {"routes": rows}


def prefix(text: str) -> IPNetwork | str:
    """Read a prefix, in any of its spellings; return what is wrong with it."""
    found = _read(ip_network, text)
    if found is not None:
        return found
    loose = _read(ip_interface, text)
    if loose is None:
        return f"prefix is {text!r}; give a prefix, as 10.65.1.0/26 or fd65::40/122"
    return f"prefix is {text!r}, which has bits beyond its length; give {loose.network}"


def _address(name: str, text: str) -> IPAddress | str:
    found = _read(ip_address, text)
    return f"{name} is {text!r}; give {AN_ADDRESS}" if found is None else found


def _read(parse: Callable[[str], Read], text: str) -> Read | None:
    try:
        return parse(text)
    except ValueError:
        return None
