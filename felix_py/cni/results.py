"""What the runtime gets back: results in the form of each spec version, and errors. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from felix_py.calc.routes import GATEWAY, GATEWAY6, HOST_MAC
from felix_py.cni.spec import VERSIONS, CniError
from felix_py.kernel.objects import Scope
from felix_py.ledger import Attachment
from felix_py.model import IPAddress

GATEWAYS = {4: GATEWAY, 6: GATEWAY6}
"""Of every pod, by version of IP."""

DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}


def added(version: str, attachment: Attachment, mtu: int, previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the result of ADD, behind that of the plugins before us where there are any.

    Args:
        version: the spec version that the runtime speaks; its result has that version's form.
        attachment: what was made.
        mtu: of both ends of the veth.
        previous: prevResult, in the same version, as the spec says.
    """
    before = previous or {}
    earlier = _list(before, "interfaces")
    return {
        **before,
        "cniVersion": version,
        "interfaces": [*earlier, *_interfaces(version, attachment, mtu)],
        "ips": [*_list(before, "ips"), *_ips(version, attachment, inside=len(earlier) + 1)],
        "routes": [*_list(before, "routes"), *_routes(version, attachment.addresses)],
        "dns": before.get("dns") or {},
    }


def _list(result: Mapping[str, Any], name: str) -> list[Any]:
    value = result.get(name) or []
    return value if isinstance(value, list) else []


def _interfaces(version: str, attachment: Attachment, mtu: int) -> tuple[dict[str, Any], ...]:
    size = {"mtu": mtu} if version == "1.1.0" else {}
    return (
        {"name": attachment.host_interface, "mac": HOST_MAC, **size},
        {"name": attachment.interface, "mac": attachment.mac, "sandbox": attachment.netns, **size},
    )


def _ips(version: str, attachment: Attachment, *, inside: int) -> list[dict[str, Any]]:
    """Return the addresses; `inside` is the index of the pod's end among all interfaces."""
    return [{**_ip(version, address), "interface": inside} for address in attachment.addresses]


def _ip(version: str, address: IPAddress) -> dict[str, Any]:
    family = {"version": str(address.version)} if version in ("0.3.1", "0.4.0") else {}  # 1.0.0 took the field away
    return {**family, "address": f"{address}/{address.max_prefixlen}", "gateway": str(GATEWAYS[address.version])}


def _routes(version: str, addresses: tuple[IPAddress, ...]) -> list[dict[str, Any]]:
    scope = {"scope": int(Scope.LINK)} if version == "1.1.0" else {}  # 1.1.0 brought the field
    families = sorted({address.version for address in addresses})
    # An IPv6 gateway is link-local, and needs no route of its own.
    on_link: list[dict[str, Any]] = [{"dst": f"{GATEWAY}/32", **scope}] if 4 in families else []  # noqa: PLR2004 - IPv4
    return [*on_link, *({"dst": DEFAULTS[family], "gw": str(GATEWAYS[family])} for family in families)]


def success(document: Mapping[str, Any] | None) -> bytes:
    """Return what the shim is sent: the digit of its exit status, and what it prints."""
    return b"0" + (line(document) if document is not None else b"")


def line(document: Mapping[str, Any]) -> bytes:
    """Return a document as the line that the shim prints."""
    return json.dumps(document).encode() + b"\n"


def error(version: str, refusal: CniError) -> dict[str, Any]:
    """Return an error; `details` only where there are some."""
    details = {"details": refusal.details} if refusal.details else {}
    return {"cniVersion": version, "code": int(refusal.code), "msg": refusal.message, **details}


def versions(version: str) -> dict[str, Any]:
    """Return the answer to VERSION."""
    return {"cniVersion": version, "supportedVersions": list(VERSIONS)}
