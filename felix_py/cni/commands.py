"""What the CNI commands do: each step in its order, and every step undone where a later one fails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import structlog

from felix_py.allocations import AddressRefused, Allocations, AlreadyAttached, StoreFailed
from felix_py.cni import graves, podnet, results
from felix_py.cni.graves import Graves
from felix_py.cni.request import CniError, Code, Command, Request
from felix_py.kernel.objects import KernelRefused
from felix_py.ledger import Attachment
from felix_py.model import NodeName, WorkloadEndpoint

WORKERS = 8
"""Threads that make pods. The kernel does one link change at a time (RTNL), but durable writes are shared by all."""

Result = TypeVar("Result")
Document: TypeAlias = dict[str, Any] | None

log = structlog.get_logger()


class Node(Protocol):
    """What pods need of their node; `felix_py.agent.Agent` is the real one."""

    @property
    def node_name(self) -> NodeName:
        """The name of this machine's Node resource."""

    def pod_mtu(self) -> int:
        """Return the bytes that a pod's packet may have on its way to any other node."""

    def not_ready(self) -> str | None:
        """Say in one sentence why no pod can be attached now; None when one can."""

    def limited(self) -> str | None:
        """Say in one sentence what pods that are attached may lack now; None when all is as it should be."""

    def expect_endpoint(self) -> None:
        """Know that a pod is being attached: what the kernel tells of it is of no interest before its endpoint."""

    async def put_endpoint(self, endpoint: WorkloadEndpoint, index: int = 0) -> None:
        """Guard and route a pod; return when its addresses are in the kernel's table.

        Args:
            endpoint: the pod.
            index: of its interface, where that was made just now; so it need not be looked for.
        """

    async def remove_endpoint(self, name: str) -> None:
        """Forget a pod and its routes."""


class Commands:
    """Serves one node's runtime; commands about different pods run at once, those about one pod in turn."""

    def __init__(self, node: Node, store: Allocations) -> None:
        self._node = node
        self._store = store
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="cni")
        self._graves = Graves()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._table: Mapping[Command, Callable[[Request, int | None], Awaitable[Document]]] = {
            Command.ADD: self._add,
            Command.DEL: self._delete,
            Command.CHECK: self._check,
            Command.GC: self._collect,
            Command.STATUS: self._status,
            Command.VERSION: self._version,
        }

    async def carry_out(self, request: Request, netns: int | None) -> Document:
        """Do what is asked and return the result; None where the command has none.

        Args:
            request: the call.
            netns: descriptor of the pod's namespace; None where the runtime gave none that can be opened.

        Raises:
            CniError: nothing was changed, or what was is undone.
        """
        try:
            async with self._alone(request):
                return await self._table[request.command](request, netns)
        except AddressRefused as refusal:
            raise CniError(Code.TRY_AGAIN_LATER, str(refusal)) from refusal
        except AlreadyAttached as refusal:
            raise CniError(Code.ALREADY_ATTACHED, str(refusal)) from refusal
        except StoreFailed as failure:
            raise CniError(Code.IO_FAILURE, str(failure)) from failure
        except KernelRefused as refusal:
            raise CniError(Code.KERNEL_REFUSED, str(refusal)) from refusal

    async def _add(self, request: Request, netns: int | None) -> Document:
        started, reason = monotonic(), self._node.not_ready()
        if reason is not None:
            raise CniError(Code.TRY_AGAIN_LATER, reason)
        if netns is None:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS is {request.netns}, which cannot be opened")
        podnet.require_namespace(netns, request.netns)
        await self._remove_sandbox_before(request)
        self._node.expect_endpoint()
        mtu, made = self._node.pod_mtu(), list[Attachment]()
        try:
            index = await self._in_thread(self._make, request, mtu, netns, made)
            (attachment,) = made
            await self._node.put_endpoint(attachment.endpoint(self._node.node_name), index)
        except BaseException as failure:  # also when the agent stops: what is half made must not stay
            for each in made:
                await self._undo(each, failure)
            raise
        log.info(
            "cni.added",
            pod=attachment.name,
            container=attachment.container_id,
            address=", ".join(map(str, attachment.addresses)),
            interface=attachment.host_interface,
            milliseconds=round((monotonic() - started) * 1000, 1),
        )
        return results.added(request.version, attachment, mtu, request.previous)

    def _make(self, request: Request, mtu: int, netns: int, made: list[Attachment]) -> int:
        """Take addresses and make the veth; return its index. What there is by now stands in `made`, come what may."""
        made.append(self._take_addresses(request))
        return podnet.add(made[0], mtu, netns)

    def _take_addresses(self, request: Request) -> Attachment:
        draft = Attachment(
            container_id=request.container_id,
            interface=request.interface,
            name=request.name,
            host_interface=request.host_interface,
            pod=request.pod,
            mac=request.mac or "",
            network=request.network,
            netns=request.netns,
            created=datetime.now(UTC),
        )
        return self._store.attach(draft, request.wanted, request.pools)

    async def _remove_sandbox_before(self, request: Request) -> None:
        """Take away the network of the pod's sandbox before this one, whose DEL was lost or is still to come."""
        before = self._store.on(request.host_interface)
        if before is not None and before.container_id != request.container_id:
            await self._remove(before)

    async def _undo(self, attachment: Attachment, failure: BaseException) -> None:
        try:
            await self._remove(attachment)
        except (KernelRefused, StoreFailed) as second:
            # DEL, which the runtime owes us after a failed ADD, finds the attachment written down and tries again.
            log.warning("cni.refused", pod=attachment.name, reason=f"{failure}; undoing it failed too: {second}")

    async def _remove(self, attachment: Attachment) -> None:
        """Unmake an attachment; the record goes last, so that whatever was interrupted can be repeated."""
        await self._node.remove_endpoint(attachment.name)
        await self._in_thread(self._unmake, attachment)

    def _unmake(self, attachment: Attachment) -> None:
        graves.mark(attachment.host_interface)
        self._graves.dig()
        self._store.detach(attachment)

    def close(self) -> None:
        """End the threads; pods that are gone leave no interface."""
        self._threads.shutdown()
        self._graves.close()

    async def _delete(self, request: Request, _: int | None) -> Document:
        started, attachment = monotonic(), self._store.find(request.container_id, request.interface)
        if attachment is None:
            found_again = self._store.on(request.host_interface)
            attachment = found_again if found_again is not None and not found_again.container_id else None
        if attachment is None:
            await self._in_thread(self._store.release, ())  # what an agent owes that died amid an ADD is paid
            return None  # never added, or deleted before: the spec wants success
        await self._remove(attachment)
        took = round((monotonic() - started) * 1000, 1)
        log.info("cni.deleted", pod=attachment.name, container=request.container_id, milliseconds=took)
        return None

    async def _check(self, request: Request, netns: int | None) -> Document:
        if not request.previous:
            raise CniError(Code.INVALID_CONFIGURATION, "CHECK needs prevResult, the result of ADD")
        attachment = self._store.find(request.container_id, request.interface)
        if attachment is None:
            sentence = f"container {request.container_id} holds no address for {request.interface}; ADD it again"
            raise CniError(Code.UNKNOWN_CONTAINER, sentence)
        if netns is None:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS is {request.netns}, which cannot be opened")
        podnet.require_namespace(netns, request.netns)
        reason = await self._in_thread(podnet.missing, attachment, netns)
        if reason is None:
            lost = await self._in_thread(self._store.not_held, attachment)
            reason = (
                f"{', '.join(map(str, lost))} is not held for it in any block; see `felixctl ipam check`"
                if lost
                else None
            )
        if reason is not None:
            raise CniError(Code.ATTACHMENT_DIFFERS, f"{attachment.name}: {reason}")
        # Returns at once where the route is in place; otherwise it says why the kernel does not hold it.
        await self._node.put_endpoint(attachment.endpoint(self._node.node_name))
        return None

    async def _collect(self, request: Request, _: int | None) -> Document:
        """Remove what the runtime no longer knows; a runtime that names nothing has nothing removed."""
        if request.valid is None:
            return None
        failures: list[str] = []
        for attachment in self._store.attachments():
            known = (attachment.container_id, attachment.interface) in request.valid
            if known or attachment.network != request.network:
                continue
            try:
                await self._remove(attachment)
                log.info("cni.deleted", pod=attachment.name, container=attachment.container_id, cause="GC")
            except (KernelRefused, StoreFailed) as failure:
                failures.append(f"{attachment.name}: {failure}")
        if failures:
            raise CniError(Code.IO_FAILURE, "; ".join(failures))
        return None

    async def _status(self, _: Request, __: int | None) -> Document:
        reason = self._node.not_ready()
        if reason is None:
            reason = await self._in_thread(self._store.exhausted)
        if reason is not None:
            raise CniError(Code.CANNOT_ADD, reason)
        limit = self._node.limited()
        if limit is not None:
            raise CniError(Code.LIMITED, limit)
        return None

    async def _version(self, request: Request, _: int | None) -> Document:
        return results.versions(request.version)

    async def _in_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Run what blocks in a thread; once begun it is waited for, even when the agent stops meanwhile."""
        task = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(CniError, KernelRefused, StoreFailed, AddressRefused, AlreadyAttached):
                await task
            raise

    @asynccontextmanager
    async def _alone(self, request: Request) -> AsyncIterator[None]:
        """Let no other command about this container or this host interface run meanwhile.

        A runtime that lost patience with ADD sends DEL while ADD still runs; DEL must then come second.
        """
        if not request.container_id:
            yield
            return
        known = self._store.find(request.container_id, request.interface)
        names = {request.container_id, request.host_interface, known.host_interface if known else ""} - {""}
        async with AsyncExitStack() as held:
            for name in sorted(names):  # always in the same order, so that no two wait for each other
                lock = self._locks.setdefault(name, asyncio.Lock())
                await held.enter_async_context(lock)
            yield
