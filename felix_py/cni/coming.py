"""Pods that come, from the wish to the answer, in one thread; a second one writes their addresses down meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol, TypeAlias

from felix_py.allocations import Allocations, AlreadyAttached, Attach
from felix_py.cni import pod_changes, podnet, results
from felix_py.cni.pod_changes import Pod
from felix_py.cni.podnet import Plan
from felix_py.cni.request import Request
from felix_py.knowledge import Admitted
from felix_py.ledger import Attachment
from felix_py.model import NodeName, WorkloadEndpoint

Say: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Gives the runtime a result at once, in whatever thread; raises nothing."""


class Routing(Protocol):
    """What pods that come need of their node in a thread of their own; `felix_py.agent.Agent` is the real one."""

    @property
    def node_name(self) -> NodeName:
        """The name of this machine's Node resource."""

    def admit(self, pods: Sequence[tuple[WorkloadEndpoint, int]]) -> list[Admitted | None]:
        """Guard pods, each with the index of the interface that was just made for it; for any thread.

        Returns:
            None for those of which that needs a look at more.
        """

    def covers(self, endpoint: WorkloadEndpoint) -> bool:
        """Say whether others know of a pod's addresses by this node's blocks; for any thread."""

    def attach(self, pods: Sequence[Admitted]) -> list[bool]:
        """Route pods that are guarded; for any thread.

        Returns:
            False for those of which that needs a look at more.
        """


@dataclass(slots=True)
class Coming:
    """An ADD under way; what there is by now stands here, come what may.

    Attributes:
        netns: descriptor of the pod's namespace.
        say: answers the runtime as soon as all holds; None where nobody waits.
        began: when, on the monotonic clock.
        names: what no other command may be about meanwhile, where they were taken for this one.
        attachment: what addresses were given to.
        veth: what was made; None while there is none.
        admitted: by whom it is guarded, as long as nothing else was looked at; None while it is not.
        routed: its guard and its routes are in the kernel.
        answered: the runtime may know, so that nothing is undone any more.
        is_urgent: others have to be told of its address, which they do not know by this node's blocks.
        failure: why it came no further.
        took: milliseconds until it was answered; 0 until then.
    """

    request: Request
    mtu: int
    netns: int
    say: Say | None
    began: float
    names: frozenset[str] = frozenset()
    attachment: Attachment | None = None
    veth: podnet.Veth | None = None
    admitted: Admitted | None = None
    routed: bool = False
    answered: bool = False
    is_urgent: bool = False
    failure: BaseException | None = None
    took: float = 0.0

    @property
    def made(self) -> Attachment:
        """The attachment, once there is one."""
        if self.attachment is None:
            raise RuntimeError(f"{self.request.name} has no addresses yet")
        return self.attachment

    @property
    def milliseconds(self) -> float:
        """Since it began."""
        return round((monotonic() - self.began) * 1000, 1)

    def result(self) -> dict[str, Any]:
        """Return what the runtime gets."""
        return results.added(self.request.version, self.made, self.mtu, self.request.previous)


class ComingPods:
    """Makes pods' networks. The disk is hardly waited for: interfaces are made meanwhile, by a guess of the addresses.

    Args:
        bury: has the interface of a pod removed that has no addresses after all.
    """

    def __init__(self, node: Routing, store: Allocations, bury: Callable[[str], None]) -> None:
        self._node = node
        self._store = store
        self._bury = bury
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="addresses")

    def close(self) -> None:
        """End the thread that writes."""
        self._writer.shutdown()

    def make(self, several: Sequence[Coming]) -> None:
        """Take addresses, make veths, guard and route pods, and answer; in the caller's thread, up to the end.

        Their addresses are written together. What became of each stands there, a failure too; nothing is raised.
        """
        asked = self._asked(several)
        if not asked:
            return
        plans = self._plans([(coming, asks.guess) for coming, asks in asked if asks.guess is not None])
        # It needs the interpreter, which is let go by what comes next.
        written = self._writer.submit(self._store.attach_all, [asks for _, asks in asked])
        self._plumb(plans)
        self._hear(asked, written)
        self._finish([coming for coming, _ in asked if coming.failure is None])

    def _asked(self, several: Sequence[Coming]) -> list[tuple[Coming, Attach]]:
        """Return what is asked of the store for each; where it has refused, that stands there."""
        found = []
        now = datetime.now(UTC)
        with _failing(*several):
            answers = self._store.foresee([_wish(each.request, now) for each in several])
            for coming, answer in zip(several, answers, strict=True):
                if isinstance(answer, AlreadyAttached):
                    coming.failure = answer
                else:
                    found.append((coming, answer))
        return found

    def _plans(self, pods: Sequence[tuple[Coming, Attachment]]) -> list[tuple[Coming, Plan]]:
        found, others = [], pod_changes.together(len(pods))
        for coming, attachment in pods:
            with _failing(coming):
                found.append((coming, podnet.plan(Pod(attachment, coming.mtu, coming.netns), others)))
        return found

    def _plumb(self, plans: Sequence[tuple[Coming, Plan]]) -> None:
        """Make veths, guard them, and set them up; without a route nobody comes in, so that the disk may be behind."""
        if not plans:
            return
        with _failing(*(coming for coming, _ in plans)):
            made = podnet.make([plan for _, plan in plans])
            for (coming, _), veth in zip(plans, made, strict=True):
                if isinstance(veth, Exception):
                    coming.failure = veth
                else:
                    coming.veth = veth
        standing = [(coming, coming.veth) for coming, _ in plans if coming.failure is None and coming.veth is not None]
        if not standing:
            return
        with _failing(*(coming for coming, _ in standing)):
            node = self._node.node_name
            admitted = self._node.admit([(veth.pod.attachment.endpoint(node), veth.index) for _, veth in standing])
            opened = podnet.open_all([veth for _, veth in standing])
            for (coming, _), guard, failure in zip(standing, admitted, opened, strict=True):
                coming.admitted, coming.failure = guard, failure

    def _hear(self, asked: Sequence[tuple[Coming, Attach]], written: "Future[list[Attachment | Exception]]") -> None:
        """Wait for the addresses; where one is not as guessed, make its veth again."""
        try:
            answers = written.result()
        except Exception as failure:  # noqa: BLE001 - whoever waits for one of these pods raises it
            answers = [failure] * len(asked)
        for (coming, asks), answer in zip(asked, answers, strict=True):
            if not isinstance(answer, Exception):
                coming.attachment = answer
                if coming.failure is None and answer != asks.guess:
                    # Another node has borrowed the address, or the block was full: the veth makes room for another one.
                    self._plumb(self._plans([(coming, answer)]))
                continue
            coming.failure = coming.failure or answer
            if coming.veth is not None:
                self._bury(asks.draft.host_interface)

    def _finish(self, several: Sequence[Coming]) -> None:
        """Route pods, and answer."""
        admitted = [(coming, coming.admitted) for coming in several if coming.admitted is not None]
        with _failing(*(coming for coming, _ in admitted)):
            routed = self._node.attach([each for _, each in admitted])
            for (coming, guard), well in zip(admitted, routed, strict=True):
                coming.routed = well
                coming.is_urgent = not self._node.covers(guard.pod)
        for coming in several:
            if coming.routed and coming.say is not None:
                with _failing(coming):
                    coming.answered = True
                    coming.say(coming.result())
                    coming.took = coming.milliseconds


def _wish(request: Request, now: datetime) -> Attach:
    draft = Attachment(
        request.container_id,
        request.interface,
        request.name,
        request.host_interface,
        (),
        request.pod,
        request.network,
        request.mac or "",
        request.netns,
        now,
    )
    return Attach(draft, request.wanted, request.pools)


class _failing:  # noqa: N801 - said like a function; contextlib's would take four times as long, for each pod twice
    """Make of whatever goes wrong the failure of these pods: whoever waits for one raises it, and others go on.

    A bug in one pod's way must not end the thread at the door.
    """

    def __init__(self, *several: Coming) -> None:
        self._several = several

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: type[BaseException] | None, failure: BaseException | None, _trace: object) -> bool:
        if not isinstance(failure, Exception):
            return False
        for coming in self._several:
            coming.failure = failure
        return True
