"""What the runtime gets back: results in the form of each spec version, and errors. Pure."""

from collections.abc import Mapping
from typing import Any

from felix_py.calc.routes import GATEWAY
from felix_py.cni.request import VERSIONS, CniError
from felix_py.kernel.objects import Scope
from felix_py.ledger import Attachment

HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""Of the host side of every pod's veth, as Calico has it: pods can know it without asking."""


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
        "routes": [*_list(before, "routes"), *_routes(version)],
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
    family = {"version": "4"} if version in ("0.3.1", "0.4.0") else {}  # 1.0.0 took the field away
    return [
        {**family, "address": f"{address}/32", "gateway": str(GATEWAY), "interface": inside}
        for address in attachment.addresses
    ]


def _routes(version: str) -> list[dict[str, Any]]:
    scope = {"scope": int(Scope.LINK)} if version == "1.1.0" else {}  # 1.1.0 brought the field
    return [{"dst": f"{GATEWAY}/32", **scope}, {"dst": "0.0.0.0/0", "gw": str(GATEWAY)}]


def error(version: str, refusal: CniError) -> dict[str, Any]:
    """Return an error; `details` only where there are some."""
    details = {"details": refusal.details} if refusal.details else {}
    return {"cniVersion": version, "code": int(refusal.code), "msg": refusal.message, **details}


def versions(version: str) -> dict[str, Any]:
    """Return the answer to VERSION."""
    return {"cniVersion": version, "supportedVersions": list(VERSIONS)}
