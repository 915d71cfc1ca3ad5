"""Who may look at a page: judged by where they come from, and by the name under which they believe to have come."""

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address

HEADERS: Mapping[str, str] = {
    # Nothing but our own files, and nothing inline: what a peer or pod is called can never become a program.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer of a page (W3C CSP 3; Fetch standard)."""


class Reach(StrEnum):
    """To whom a page is served (the setting `page`)."""

    LOOPBACK = "loopback"
    ENABLED = "enabled"
    DISABLED = "disabled"


def refusal(reach: Reach, host: str | None, address: str | None) -> str | None:
    """Say why a page is not shown, in a sentence with the remedy; None where it is.

    Args:
        reach: to whom it is served.
        host: the Host header (RFC 9110 section 7.2), with or without a port.
        address: where the client connects from; None where it is not known.
    """
    if reach is Reach.LOOPBACK and not _is_loopback(address):
        return (
            f"the page is served to this machine only, and {address} is another one; open it there, "
            "forward a port (ssh -L 9099:127.0.0.1:9099), or set page: Enabled in felix.yaml"
        )
    name = _name(host or "")
    if name != "localhost" and not _is_address(name):
        # DNS rebinding: a stranger's name that leads here would make his page and ours one origin.
        return f"Host is {name!r}, and the page is served under addresses and localhost only; open it by its address"
    return None


def _name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(address: str | None) -> bool:
    if address is None or not _is_address(address):
        return False
    found = ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
