"""Follows the datastore until it is in sync, and says what that took: run by a test, in a process of its own."""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client
from felix_py.model import NodeName
from felix_py.state import ClusterState


async def main(kubeconfig: str, node: str) -> None:
    began = time.monotonic()
    cluster = ClusterState()
    async for news in KubernetesDatastore(Client(Path(kubeconfig)), NodeName(node), Path("/nonexistent")).events():
        cluster = cluster.after_all(news)
        if cluster.in_sync:
            break
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    document = {"seconds": seconds, "mebibytes": used.ru_maxrss / 1024, "processor": used.ru_utime + used.ru_stime}
    print(json.dumps(document | {"resources": len(cluster.resources)}))  # noqa: T201 - to whoever runs this


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
