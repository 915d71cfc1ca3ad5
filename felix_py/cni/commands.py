"""What the CNI commands do: each step in its order, and every step undone where a later one fails."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog

from felix_py.allocations import AddressRefused, Allocations, AlreadyAttached
from felix_py.cni import graves, pod_ends, podnet, results
from felix_py.cni.coming import Coming, ComingPods, Routing, Say
from felix_py.cni.graves import Graves
from felix_py.cni.names import Names
from felix_py.cni.request import Request
from felix_py.cni.spec import CniError, Code, Command
from felix_py.kernel.objects import KernelRefused
from felix_py.ledger import Attachment
from felix_py.model import WorkloadEndpoint
from felix_py.store_failed import StoreFailed

WORKERS = 8
"""Threads that make pods. The kernel does one link change at a time (RTNL), but durable writes are shared by all."""

Result = TypeVar("Result")
Document: TypeAlias = dict[str, Any] | None

log = structlog.get_logger()


class Node(Routing, Protocol):
    """What pods need of their node; `felix_py.agent.Agent` is the real one."""

    def pod_mtu(self) -> int:
        """Return the bytes that a pod's packet may have on its way to any other node."""

    def not_ready(self) -> str | None:
        """Say in one sentence why no pod can be attached now; None when one can."""

    def limited(self) -> str | None:
        """Say in one sentence what pods that are attached may lack now; None when all is as it should be."""

    def expect_endpoint(self) -> None:
        """Know that a pod is being attached: what the kernel tells of it is of no interest before its endpoint."""

    def attached(self, endpoint: WorkloadEndpoint) -> None:
        """Know of a pod that was attached so; none is that has not been told here."""

    async def put_endpoint(self, endpoint: WorkloadEndpoint) -> None:
        """Guard and route a pod; return when its addresses are in the kernel's table."""

    async def remove_endpoint(self, name: str) -> None:
        """Forget a pod and its routes."""


class Commands:
    """Serves one node's runtime; commands about different pods run at once, those about one pod in turn."""

    def __init__(self, node: Node, store: Allocations) -> None:
        self._node = node
        self._store = store
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="cni")
        self._graves = Graves()
        self._coming_pods = ComingPods(node, store, self._bury)
        self._names = Names()
        self._table: Mapping[Command, Callable[[Request, int | None], Awaitable[Document]]] = {
            Command.DEL: self._delete,
            Command.CHECK: self._check,
            Command.GC: self._collect,
            Command.STATUS: self._status,
            Command.VERSION: self._version,
        }

    async def carry_out(self, request: Request, netns: int | None, say: Say | None = None) -> Document:
        """Do what is asked and return the result; None where the command has none.

        Args:
            request: the call.
            netns: descriptor of the pod's namespace; None where the runtime gave none that can be opened.
            say: is given the same result a little earlier, where it can be: what is left to do nobody waits for.

        Raises:
            CniError: nothing was changed, or what was is undone.
        """
        with _as_answers():
            async with self._names.held(self._names_of(request)):
                if request.command is Command.ADD:
                    return await self._add(request, netns, say)
                return await self._table[request.command](request, netns)

    def begin(self, request: Request, netns: int | None, say: Say) -> Coming | None:
        """Begin an ADD that waits for nobody; None if it does. Then `make`, and `note` or `complete`; for any thread.

        Raises:
            CniError: where the namespace is none.
        """
        if netns is None or self._node.not_ready() is not None:
            return None
        podnet.require_namespace(netns, request.netns)
        names = self._names_of(request)
        if not self._names.take(names):
            return None
        before = self._store.on(request.host_interface)
        if before is not None and before.container_id != request.container_id:
            self._names.give_back(names)
            return None
        self._node.expect_endpoint()
        return Coming(request, self._node.pod_mtu(), netns, say, monotonic(), names)

    def make(self, several: Sequence[Coming]) -> None:
        """Make the pods of ADDs; what became of each stands there, a failure too. For any thread."""
        self._coming_pods.make(several)

    def note(self, coming: Coming) -> None:
        """Take note of a pod that was begun, made and answered."""
        self._told(coming)
        self._names.give_back(coming.names)

    async def complete(self, coming: Coming) -> Document:
        """Do what is left to do for a pod that was begun and made, but not answered; return the result.

        Raises:
            CniError: what was made is undone.
        """
        try:
            with _as_answers():
                return await self._completed(coming)
        finally:
            self._names.give_back(coming.names)

    async def _add(self, request: Request, netns: int | None, say: Say | None) -> Document:
        began, reason = monotonic(), self._node.not_ready()
        if reason is not None:
            raise CniError(Code.TRY_AGAIN_LATER, reason)
        if netns is None:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS is {request.netns}, which cannot be opened")
        podnet.require_namespace(netns, request.netns)
        await self._remove_sandbox_before(request)
        self._node.expect_endpoint()
        coming = Coming(request, self._node.pod_mtu(), netns, say, began)
        try:
            await self._in_thread(self.make, [coming])
        except asyncio.CancelledError as stop:
            coming.failure = coming.failure or stop
        return await self._completed(coming)

    async def _completed(self, coming: Coming) -> Document:
        failure = coming.failure
        if failure is None and not coming.routed:
            try:
                await self._node.put_endpoint(coming.made.endpoint(self._node.node_name))
            except BaseException as refusal:  # noqa: BLE001 - raised below; also when the agent stops
                failure = refusal
        if failure is not None:  # what is half made must not stay
            self._tell(coming)
            if coming.attachment is not None and not coming.answered:
                await self._undo(coming.attachment, failure)
            raise failure
        self._told(coming)
        return coming.result()

    def _told(self, coming: Coming) -> None:
        self._tell(coming)
        log.info(
            "cni.added",
            pod=coming.made.name,
            container=coming.made.container_id,
            address=", ".join(map(str, coming.made.addresses)),
            interface=coming.made.host_interface,
            milliseconds=coming.took or coming.milliseconds,
        )

    def _tell(self, coming: Coming) -> None:
        if coming.routed and coming.admitted is not None:
            self._node.attached(coming.admitted.pod)

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
        self._bury(attachment.host_interface)
        self._store.detach(attachment)

    def _bury(self, host_interface: str) -> None:
        graves.mark(host_interface)
        self._graves.dig()

    def close(self) -> None:
        """End the threads; pods that are gone leave no interface."""
        self._threads.shutdown()
        self._coming_pods.close()
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
        reason = await self._in_thread(pod_ends.missing, attachment, netns)
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

    def _names_of(self, request: Request) -> frozenset[str]:
        """Return what no other command may be about meanwhile: this container, and this host interface.

        A runtime that lost patience with ADD sends DEL while ADD still runs; DEL must then come second.
        """
        if not request.container_id:
            return frozenset()
        known = self._store.find(request.container_id, request.interface)
        names = {request.container_id, request.host_interface, known.host_interface if known else ""}
        return frozenset(names - {""})


@contextmanager
def _as_answers() -> Iterator[None]:
    """Make of failures what the runtime is told."""
    try:
        yield
    except AddressRefused as refusal:
        raise CniError(Code.TRY_AGAIN_LATER, str(refusal)) from refusal
    except AlreadyAttached as refusal:
        raise CniError(Code.ALREADY_ATTACHED, str(refusal)) from refusal
    except StoreFailed as failure:
        raise CniError(Code.IO_FAILURE, str(failure)) from failure
    except KernelRefused as refusal:
        raise CniError(Code.KERNEL_REFUSED, str(refusal)) from refusal
