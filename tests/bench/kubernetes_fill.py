"""Fills an API server with the objects of a large cluster: a program that runs in the server's network namespace."""

import http.client
import json
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

THREADS = 8
PODS_OF_A_NODE = 10

CUSTOM = "/apis/projectcalico.org/v3"
KEPT = {"app.kubernetes.io/managed-by": "felix-py"}

IMAGES = [
    {"names": [f"example/image-{number}@sha256:{number:064x}", f"example/image-{number}:v1"], "sizeBytes": 123456789}
    for number in range(50)
]
"""Kubelet lists the 50 largest images of each node: most of what a Node is."""

Request = tuple[str, str, dict[str, Any]]


def name_of(number: int) -> str:
    return f"n{number:05}"


def objects(number: int) -> Iterator[Request]:
    """Yield what makes a node with its block and its pods."""
    name = name_of(number)
    address = f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}"
    noted = {"projectcalico.org/IPv4Address": f"{address}/12", "felix-py/detected-ipv4": f"{address}/12"}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "rack": f"r{number // 40}"}
    yield "POST", "/api/v1/nodes", {"metadata": {"name": name, "annotations": noted, "labels": labels}}
    conditions = [
        {"type": each, "status": "False", "reason": f"KubeletHas{each}", "message": "kubelet says that all is well"}
        for each in ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready")
    ]
    status = {"images": IMAGES, "conditions": conditions, "addresses": [{"type": "InternalIP", "address": address}]}
    yield "PATCH", f"/api/v1/nodes/{name}/status", {"status": status}
    base = f"10.{number // 1024}.{number // 4 % 256}"
    block, first = f"{base}.{number % 4 * 64}/26", number % 4 * 64
    dashed = block.replace(".", "-").replace("/", "-")
    affinity = {"cidr": block, "node": name, "state": "confirmed"}
    yield "POST", f"{CUSTOM}/blockaffinities", _custom("BlockAffinity", f"{name}-{dashed}", affinity)
    pods = [f"app-{number:05}-{each}" for each in range(PODS_OF_A_NODE)]
    allocations = {
        f"{base}.{first + each}": {
            "handle_id": f"k8s-pod-network.{number:032x}{each:032x}",
            "secondary": {"node": name, "namespace": "default", "pod": pod, "timestamp": "2026-11-26T12:00:00+00:00"},
        }
        for each, pod in enumerate(pods)
    }
    spec = {"cidr": block, "affinity": f"host:{name}", "allocations": allocations, "released": []}
    yield "POST", f"{CUSTOM}/ipamblocks", _custom("IPAMBlock", dashed, spec)
    for pod in pods:
        container = {"name": "app", "image": "example/image-1:v1"}
        metadata = {"name": pod, "labels": {"app": f"app-{number}"}}
        yield "POST", "/api/v1/namespaces/default/pods", {
            "metadata": metadata, "spec": {"nodeName": name, "containers": [container]},
        }  # fmt: skip


def _custom(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name, "labels": KEPT}, "spec": spec
    }  # fmt: skip


def connection(server: str, folder: Path) -> http.client.HTTPSConnection:
    """Connect as the administrator."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    return http.client.HTTPSConnection(urlsplit(server).netloc, context=context)


def send(wire: http.client.HTTPSConnection, request: Request) -> None:
    method, path, document = request
    content = "application/json" if method == "POST" else "application/strategic-merge-patch+json"
    wire.request(method, path, json.dumps(document), {"Content-Type": content})
    answer = wire.getresponse()
    text = answer.read()
    if answer.status not in (200, 201, 409):  # what is there from another run stays
        raise AssertionError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")


def fill(server: str, folder: Path, numbers: range) -> None:
    """Make these nodes."""
    wire = connection(server, folder)
    for number in numbers:
        for request in objects(number):
            send(wire, request)
    wire.close()


def main(server: str, folder: str, first: str, last: str) -> None:
    """Make all of these nodes, several at a time."""
    parts = [range(int(first) + part, int(last), THREADS) for part in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda part: fill(server, Path(folder), part), parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
