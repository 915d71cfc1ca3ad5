"""The agent put together from its parts: what `felix-agent` runs, with the real kernel, datastore, BGP and CNI."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from bgp.exabgp_process import BgpService
from felix_py import __version__
from felix_py.agent import Agent
from felix_py.allocations import Allocations
from felix_py.api import Api
from felix_py.calc import sessions
from felix_py.cni.server import CniServer
from felix_py.config import Config
from felix_py.datastore import directory
from felix_py.datastore.directory import DirectoryDatastore
from felix_py.handlers import Handlers
from felix_py.kernel.netlink import Kernel, Watch
from felix_py.kernel.objects import KernelState, Plan, Report
from felix_py.kernel.reconcile import plan
from felix_py.model import Key
from felix_py.state import ClusterState, Present
from felix_py.turn import look
from ipip.device import Device, TunnelRefused

log = structlog.get_logger()


class Refused(Exception):  # noqa: N818 - named for what happened: the agent does not start, and the sentence says why
    """The agent cannot run here as things are."""


@contextmanager
def only_one(settings: Config) -> Iterator[None]:
    """Hold the node's lock: two agents would undo each other's work.

    Raises:
        Refused: when another agent runs, with its process ID.
    """
    path = settings.run_directory / "agent.lock"
    try:
        settings.run_directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(f"{path} cannot be opened: {error.strerror}; give a writable runDirectory") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Refused(
            f"an agent runs on this node already (process {holder}, {path}); stop it first, or ask it with felixctl"
        ) from error
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


async def run(settings: Config) -> int:
    """Be this node's agent until SIGTERM or SIGINT; everything in the kernel stays as it is then."""
    with only_one(settings):
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        device = Device(run_directory=settings.run_directory, driver=settings.tunnel_driver)
        kernel = Kernel(device, TunnelRefused)
        store = Allocations(settings.state_directory, settings.node_name)
        agent: Agent
        speaker = BgpService(on_change=lambda: agent.wake("bgp"))
        agent = Agent(settings, kernel, DirectoryDatastore(settings.resource_directory), speaker, store.tunnel_address)
        # Pods of before are known before anything is compared: no turn happens until the datastore is in sync.
        agent.tell(*(Present(Key("WorkloadEndpoint", each.name), each) for each in store.endpoints()))
        watch = Watch(kernel.port)
        asyncio.get_running_loop().add_reader(watch.fileno(), watch.drain, agent.wake)
        log.info("agent.started", node=settings.node_name, version=__version__, pid=os.getpid())
        log.info("tunnel.driver", driver=device.driver, reason=device.why)
        try:
            await _until(
                stop,
                agent,
                speaker,
                Api(settings.run_directory / "agent.sock", Handlers(agent, speaker, device).all()),
                CniServer(settings.run_directory / "cni.sock", agent, store),
            )
        finally:
            asyncio.get_running_loop().remove_reader(watch.fileno())
            watch.close()
            await speaker.stop()
            kernel.close()
        log.info("agent.stopped", node=settings.node_name)
        return 0


async def _until(stop: asyncio.Event, agent: Agent, speaker: BgpService, api: Api, cni: CniServer) -> None:
    """Run every part until `stop`; a part that fails takes the agent down, to be started again."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    parts = [
        asyncio.create_task(work, name=name)
        for name, work in (
            # In this order: who reads on one socket that the node is in sync finds the other one open.
            ("cni", cni.serve()),
            ("api", api.serve()),
            ("datastore", agent.follow_datastore()),
            ("loop", agent.run()),
            ("bgp", speaker.run()),
        )
    ]
    try:
        done, _ = await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
            raise Refused(f"the agent's part {task.get_name()} ended although nobody stopped it")
    finally:
        for task in (stopping, *parts):
            task.cancel()
        await asyncio.gather(stopping, *parts, return_exceptions=True)


def plan_once(settings: Config) -> Plan:
    """Return what an agent started now would change at first; BGP says nothing yet, so remote routes stay."""
    kernel = _kernel(settings)
    try:
        store = Allocations(settings.state_directory, settings.node_name)
        reading = directory.read(settings.resource_directory)
        resources = {key: value for key, (_, value) in reading.good.items()}
        resources |= {Key("WorkloadEndpoint", each.name): each for each in store.endpoints()}
        cluster = ClusterState(resources, in_sync=True)
        blocks = sessions.own_blocks(cluster, settings.node_name)
        address = store.tunnel_address(blocks[0], keep=False) if blocks else None
        return look(kernel, cluster, (), settings.node_name, converged=False, tunnel_address=address).steps
    finally:
        kernel.close()


def clean_up(settings: Config) -> Report:
    """Remove every route and tunnel of ours; refuses while an agent runs, which would put them back."""
    with only_one(settings):
        kernel = _kernel(settings)
        try:
            table = kernel.table(kernel.links())
            return kernel.carry_out(plan(KernelState(), kernel.read(KernelState(), table)))
        finally:
            kernel.close()


def _kernel(settings: Config) -> Kernel:
    return Kernel(Device(run_directory=settings.run_directory, driver=settings.tunnel_driver), TunnelRefused)
