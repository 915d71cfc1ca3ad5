"""What a large cluster costs an agent at its start: Nodes as kubelet makes them, and a block for each."""

import http.client
import json
import os
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_server import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.alone]

NODES = int(os.environ.get("NODES", "1000"))
MOST_MEBIBYTES = 140
MOST_SECONDS = 10.0

IMAGES = [
    {"names": [f"example/image-{number}@sha256:{number:064x}", f"example/image-{number}:v1"], "sizeBytes": 123456789}
    for number in range(50)
]
"""Kubelet lists the 50 largest images of each node: most of what a Node is."""


def objects(number: int) -> list[tuple[str, str, dict[str, Any]]]:
    name = f"n{number}"
    noted = {"projectcalico.org/IPv4Address": f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}/12"}
    node = {"metadata": {"name": name, "annotations": noted, "labels": {"kubernetes.io/hostname": name, "rack": "a"}}}
    block = f"10.{number // 1024}.{number // 4 % 256}.{number % 4 * 64}/26"
    affinity = {
        "apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": {"name": f"{name}-block"},
        "spec": {"cidr": block, "node": name, "state": "confirmed"},
    }  # fmt: skip
    return [
        ("POST", "/api/v1/nodes", node),
        ("PATCH", f"/api/v1/nodes/{name}/status", {"status": {"images": IMAGES}}),
        ("POST", "/apis/projectcalico.org/v3/blockaffinities", affinity),
    ]


def fill(server: ApiServer, numbers: range) -> None:
    context = ssl.create_default_context(cafile=str(server.folder / "ca.crt"))
    context.load_cert_chain(server.folder / "admin.crt", server.folder / "admin.key")
    connection = http.client.HTTPSConnection(urlsplit(server.url).netloc, context=context)
    for number in numbers:
        for method, path, document in objects(number):
            content = "application/json" if method == "POST" else "application/merge-patch+json"
            connection.request(method, path, json.dumps(document), {"Content-Type": content})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status in (200, 201), text
    connection.close()


def test_an_agent_of_a_large_cluster_starts_soon_and_stays_small(server: ApiServer) -> None:
    pool = {"cidr": "10.0.0.0/8", "ipipMode": "CrossSubnet"}
    server.apply(
        {"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "default"}, "spec": pool}
    )
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda part: fill(server, range(part, NODES, 4)), range(4)))
    program = [sys.executable, str(Path(__file__).with_name("follow.py")), str(server.kubeconfig), "n7"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)  # noqa: T201 - for whoever measures
    assert found["resources"] >= 2 * NODES
    assert found["seconds"] < MOST_SECONDS
    assert found["mebibytes"] < MOST_MEBIBYTES
