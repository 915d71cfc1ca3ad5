"""What `felix-agent plan` and `cleanup` do: look at the kernel once, with no agent around it."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from felix_py.allocations import Allocations
from felix_py.calc import sessions
from felix_py.cni import pod_ends
from felix_py.config import Config
from felix_py.daemon import families, only_one
from felix_py.daemon import store as store_of
from felix_py.datastore import directory
from felix_py.datastore.api import Datastore
from felix_py.kernel import sysctl
from felix_py.kernel.guard_choice import choose
from felix_py.kernel.guard_programs import GuardPrograms
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.nftables import Nftables
from felix_py.kernel.objects import KernelRefused, KernelState, Step
from felix_py.kernel.purge import NoPurger
from felix_py.kernel.rtnetlink import Rtnetlink
from felix_py.knowledge import Knowledge
from felix_py.model import Key, Resource
from felix_py.state import ClusterState
from felix_py.turn import Turns
from ipip.device import Device, TunnelRefused
from vxlan.device import Device as VxlanDevice


def plan_once(settings: Config) -> Iterator[Step]:
    """Yield what an agent started now would change at first; BGP says nothing yet, so remote routes stay.

    Raises:
        KernelRefused: when the kernel could not be read.
    """
    with _turns(settings) as turns:
        where = store_of(settings)
        store = Allocations(where.swaps, settings.node_name)
        resources = _resources(settings, where.resources)
        resources |= {Key("WorkloadEndpoint", each.name): each for each in store.endpoints()}
        cluster = ClusterState(resources, in_sync=True)
        store.addresses.own.cluster = lambda: cluster
        blocks = sessions.tunnel_blocks(cluster, settings.node_name)
        given = (store.tunnel_address(block, keep=False) for block in blocks)
        addresses = tuple(each for each in given if each is not None)
        off = not settings.bgp
        knowledge = Knowledge(
            cluster,
            converged=off,
            tunnel_addresses=addresses,
            filtered=settings.netfilter,
            by_datastore=off,
            guarded=choose(settings.pod_guard, filtered=settings.netfilter).kind == "ebpf",
        )
        steps, intentions = turns.plan(knowledge)
        yield from steps
        for intention in intentions:
            yield from turns.steps(intention)


def clean_up(settings: Config) -> tuple[list[Step], list[tuple[Step, str]]]:
    """Remove all routes, tunnels, filters and programs of ours; refuses while an agent runs, which would put them back.

    Returns:
        what was done, and what was refused with the reason.

    Raises:
        KernelRefused: when the kernel could not be read.
    """
    with only_one(settings), _turns(settings) as turns:
        turns.kernel.resync()
        report = turns.kernel.make(KernelState(), turns.now())
        if report.routes.broken is not None:
            raise KernelRefused(report.routes.broken)
        return [*report.done, *turns.written(report.routes)], [*report.failed, *turns.refused(report.routes)]


def _resources(settings: Config, datastore: Datastore) -> dict[Key, Resource]:
    """Return all resources as they are now."""
    if settings.datastore == "directory":  # following it would make folders
        return {key: value for key, (_, value) in directory.read(settings.resource_directory).good.items()}
    return dict(asyncio.run(_in_sync(datastore)).resources)


async def _in_sync(datastore: Datastore) -> ClusterState:
    cluster = ClusterState()
    async with contextlib.aclosing(datastore.events()) as events:
        async for news in events:
            cluster = cluster.after_all(news)
            if cluster.in_sync:
                break
    return cluster


@contextmanager
def _turns(settings: Config) -> Iterator[Turns]:
    """Look at the kernel once, without anybody who watches."""
    wire, netfilter, vxlan, programs = Rtnetlink(), Nftables(), VxlanDevice(), GuardPrograms()
    try:
        device = Device(run_directory=settings.run_directory, driver=settings.tunnel_driver)
        parts = (wire, device, TunnelRefused, sysctl, NoPurger())
        kernel = Kernel(*parts, families(), netfilter, pod_ends, vxlan, programs)
        yield Turns(kernel, settings.node_name, time.monotonic)
    finally:
        wire.close()
        netfilter.close()
        programs.close()
        vxlan.close()
