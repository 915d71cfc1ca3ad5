"""Pods whose attachment waits until the kernel holds their routes."""

import asyncio
from collections.abc import Mapping

from felix_py.kernel.engine import Standing
from felix_py.kernel.objects import KernelRefused, RouteKey
from felix_py.model import WorkloadEndpoint

ENDPOINT_DEADLINE = 60.0
"""Seconds that a pod's attachment may wait for its route before the runtime is told that it failed: where hundreds of
pods start at once, a turn waits for a processor for longer than ten; runtimes wait for minutes."""


class AwaitedPods:
    """Those of one node; everything here runs in the loop. It is true while somebody waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[WorkloadEndpoint, asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def routed(self, endpoint: WorkloadEndpoint) -> None:
        """Wait until a turn finds all addresses of a pod in the kernel's table.

        Raises:
            KernelRefused: with the kernel's reason, or when it took longer than ENDPOINT_DEADLINE.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting[endpoint.name] = (endpoint, done)
        try:
            await asyncio.wait_for(done, ENDPOINT_DEADLINE)
        except TimeoutError as late:
            sentence = f"{endpoint.name} was not routed within {ENDPOINT_DEADLINE:.0f} s; see `felixctl status`"
            raise KernelRefused(sentence) from late
        finally:
            self._waiting.pop(endpoint.name, None)

    def routes(self) -> list[RouteKey]:
        """Return the routes that somebody waits for."""
        return [RouteKey(network) for endpoint, _ in self._waiting.values() for network in endpoint.networks]

    def answer(self, standings: Mapping[RouteKey, Standing], unsafe: str | None) -> None:
        """Answer those of whom a turn says enough.

        Args:
            standings: how their routes are.
            unsafe: why pods are not guarded, if so.
        """
        for endpoint, done in tuple(self._waiting.values()):
            if unsafe is not None and not done.done():
                # A pod without the filter could send from any address, and into other nodes' tunnels.
                done.set_exception(KernelRefused(f"{endpoint.name}: {unsafe}"))
            found = [standings.get(RouteKey(network)) for network in endpoint.networks]
            if done.done() or None in found:
                continue
            reasons = [each.reason for each in found if each is not None and each.reason is not None]
            if not reasons:
                done.set_result(None)
            elif refused := [each.reason for each in found if each is not None and each.refused]:
                done.set_exception(KernelRefused(f"{endpoint.name}: {'; '.join(filter(None, refused))}"))
