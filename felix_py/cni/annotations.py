"""Calico's annotations of a pod, where the runtime passes them on. Pure.

containerd (from 1.7) and CRI-O do so for a plugin that declares the capability `io.kubernetes.cri.pod-annotations`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

CAPABILITY = "io.kubernetes.cri.pod-annotations"
"""The key of runtimeConfig under which a pod's annotations stand."""

PREFIX = "cni.projectcalico.org/"

REFUSED = ("ipAddrsNoIpam", "floatingIPs", "allowedSourcePrefixes")
"""What would make another network than the pod asks for; what else has the prefix are notes of Calico's own."""

POOLS = {"ipv4pools": 4, "ipv6pools": 6}
"""Name of an annotation to the version of IP that it is about."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """What a pod's annotations ask for.

    Attributes:
        addresses: `ipAddrs`, as written.
        pools: `ipv4pools` and `ipv6pools`: version of IP, and the name of an IPPool or its range.
        mac: `hwAddr`, as written; empty where there is none.
    """

    addresses: tuple[str, ...] = ()
    pools: tuple[tuple[int, str], ...] = ()
    mac: str = ""


def read(annotations: object) -> Annotated:
    """Read a pod's annotations; None has none.

    Raises:
        ValueError: with a sentence that names the annotation that cannot be used, and the remedy.
    """
    if annotations is None:
        return Annotated()
    if not isinstance(annotations, Mapping):
        raise ValueError(  # noqa: TRY004 - for whoever catches it, one kind of fault
            f"runtimeConfig.{CAPABILITY} is {str(annotations)[:80]!r}; it must be a JSON object"
        )
    for name in REFUSED:
        if annotations.get(PREFIX + name):
            raise ValueError(f"annotation {PREFIX}{name} is not supported; remove it from the pod")
    pools = tuple((version, each) for name, version in POOLS.items() for each in _list(annotations, name))
    return Annotated(_list(annotations, "ipAddrs"), pools, str(annotations.get(f"{PREFIX}hwAddr") or ""))


def _list(annotations: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Return an annotation that is a list of strings, written as JSON."""
    written = annotations.get(PREFIX + name)
    if not written:
        return ()
    try:
        found = json.loads(str(written))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        sentence = f"annotation {PREFIX}{name} is {str(written)[:80]!r}"
        raise ValueError(f'{sentence}; write a JSON list of strings, as ["10.65.0.9"]')
    return tuple(found)
