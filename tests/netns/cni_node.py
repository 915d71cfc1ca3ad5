"""A node that does nothing but attach pods: the real CNI server, the real store, and real routes. Run by cni_lab."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from socket import if_nametoindex

sys.path.insert(0, str(Path(__file__).parents[1]))
from builders import with_blocks

from felix_py import log
from felix_py.allocations import Allocations
from felix_py.cni.server import CniServer
from felix_py.datastore.swaps import FolderSwaps
from felix_py.kernel.objects import KernelRefused, Route, RouteKey, Scope
from felix_py.kernel.route_codec import Encoder
from felix_py.kernel.wire import Mode, Verb
from felix_py.kernel.writer import Writer
from felix_py.knowledge import Admitted
from felix_py.model import NodeName, WorkloadEndpoint


class RoutingNode:
    """Writes each pod's route at once, where the agent would do so in its next turn."""

    node_name = NodeName("n1")

    def __init__(self, trouble: Path, store: Allocations) -> None:
        self._trouble = trouble
        self._writer = Writer()
        self._endpoints = {endpoint.name: endpoint for endpoint in store.endpoints()}

    def pod_mtu(self) -> int:
        return 1480

    def not_ready(self) -> str | None:
        return "the node is not in sync yet" if self._says("not ready") else None

    def limited(self) -> str | None:
        return "the route to 10.65.1.0/26 was refused" if self._says("limited") else None

    def expect_endpoint(self) -> None:
        pass

    def admit(self, pods: Sequence[tuple[WorkloadEndpoint, int]]) -> list[Admitted | None]:
        return [None] * len(pods)

    def attach(self, pods: Sequence[Admitted]) -> list[bool]:
        return [False] * len(pods)

    def covers(self, endpoint: WorkloadEndpoint) -> bool:
        raise AssertionError(f"{endpoint.name} was not attached")

    def attached(self, endpoint: WorkloadEndpoint) -> None:
        raise AssertionError(f"{endpoint.name} was not attached")

    async def put_endpoint(self, endpoint: WorkloadEndpoint) -> None:
        if self._says("refuse routes"):
            raise KernelRefused(f"{endpoint.name}: the route was refused")
        while self._says("wait"):  # noqa: ASYNC110 - the word comes from the test, in another process
            await asyncio.sleep(0.01)
        self._endpoints[endpoint.name] = endpoint
        encode = Encoder({endpoint.interface: if_nametoindex(endpoint.interface)})
        route = Route(device=endpoint.interface, scope=Scope.LINK)
        bodies = [encode(RouteKey(network), route) for network in endpoint.networks]
        refused = self._writer.write(Verb.NEW_ROUTE, Mode.CREATE | Mode.REPLACE, bodies)
        if refused:
            raise KernelRefused(f"{endpoint.name}: {refused}")

    async def remove_endpoint(self, name: str) -> None:
        if self._says(f"refuse removal of {name.removeprefix('container/')}"):
            raise KernelRefused(f"{name}: its route was not removed")
        self._endpoints.pop(name, None)

    def _says(self, trouble: str) -> bool:
        return self._trouble.exists() and self._trouble.read_text() == trouble


async def main(socket_path: str, state: str, trouble: str, *blocks: str) -> None:
    log.set_up(log_format="json", level="info")
    store = Allocations(FolderSwaps(Path(state)), NodeName("n1"), before=Path(state))
    cluster = with_blocks("n1", *blocks)
    store.addresses.own.cluster = lambda: cluster
    node = RoutingNode(Path(trouble), store)
    serving = asyncio.create_task(CniServer(Path(socket_path), node, store).serve())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
