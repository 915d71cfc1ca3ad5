"""Who works at the kernel, one thread at a time: the loop's turns in a thread of theirs, and whoever attaches a pod."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event as ThreadEvent
from threading import Lock
from typing import TypeVar

from felix_py.calc.hearsay import Hearsay
from felix_py.kernel.engine import Standing
from felix_py.kernel.objects import Route, RouteKey
from felix_py.kernel.watch import PAUSE
from felix_py.knowledge import Admitted, Done, Knowledge
from felix_py.model import Key, WorkloadEndpoint
from felix_py.picture import Picture
from felix_py.state import Event, InSync, Present
from felix_py.telling import Saying, repairs, say, sayings, sentences, tell_of_pod
from felix_py.turn import Turns

PATIENCE = 1.0
"""Seconds that the loop may take to answer; it may have ended, and then nobody does."""

LONG_TURN = 0.1
"""Seconds that a pod waits for a turn before it lets others go first, who need no kernel: a table may be arriving."""

PAUSES = 40
"""How often at most the interpreter is left to others in the midst of what the kernel tells: what pods bring is over by
then, and a storm need not take longer."""

MOMENT = 0.02
"""Seconds that a turn lets pods go first that wait for the disk alone."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Told:
    """What the kernel's thread says after a turn, made there because nothing changes meanwhile.

    Attributes:
        busy: seconds of a core that all of it took.
        sayings: what there is to log of it.
    """

    picture: Picture
    repairs: Counter[str]
    states: Mapping[str, int]
    refusal: str | None
    standings: Mapping[RouteKey, Standing]
    busy: float
    sayings: Sequence[Saying]


class InTurn:
    """A lock that whoever waits for it has before who gave it back: a turn comes in parts, and pods in between."""

    def __init__(self) -> None:
        self._next = Lock()
        self._lock = Lock()

    def acquire(self, timeout: float = -1.0) -> bool:
        """Take it; False where it could not be had in so many seconds, of which it may take twice as many."""
        if not self._next.acquire(timeout=timeout):
            return False
        try:
            return self._lock.acquire(timeout=timeout)
        finally:
            self._next.release()

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()


class KernelThread:
    """Lets one thread at a time to the kernel, so that there is one writer.

    A pod that is attached is told to the loop when its routes stand already. Until the loop has heard of it, it is
    added to what any turn knows: so no turn that comes after its routes can fail to want them.

    Attributes:
        thread: in which the loop's turns and questions run.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._alone = InTurn()
        self._nobody_between = ThreadEvent()
        self._nobody_between.set()
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._coming: dict[str, WorkloadEndpoint] = {}
        self._written: dict[str, Mapping[RouteKey, Route]] = {}

    async def ask(self, question: Callable[[Turns], Result]) -> Result:
        """Run a question in the kernel's thread, where nothing changes meanwhile; for the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._answer, question)

    def _answer(self, question: Callable[[Turns], Result]) -> Result:
        with self._alone:
            return question(self._turns)

    async def calm(self) -> bool:
        """Take what has happened, and say whether pods need no turn because of it; for the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._is_calm)

    def _is_calm(self) -> bool:
        self._listen()
        with self._alone:
            return self._turns.is_calm()

    async def turn(self, question: Callable[[Turns], tuple[Done, Told]]) -> tuple[Done, Told]:
        """Run a turn in the kernel's thread, and before it, bit by bit, take what has happened; for the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._turned, question)

    def _listen(self) -> None:
        self._turns.receive()
        pauses, more = PAUSES, True
        while more:
            with self._alone:
                more = self._turns.listen()
            if more and pauses:
                pauses -= 1
                time.sleep(PAUSE)

    def _turned(self, question: Callable[[Turns], tuple[Done, Told]]) -> tuple[Done, Told]:
        self._listen()
        # Pods that are guarded and not routed yet would wait for the turn as well, and be guarded twice.
        if not self._nobody_between.wait(MOMENT):
            self._nobody_between.set()
        done, told = self._answer(question)
        began = time.thread_time()
        say(told.sayings)  # pods that wait for the kernel need not wait for this
        return done, replace(told, busy=told.busy + time.thread_time() - began)

    def admit(self, pods: Sequence[tuple[WorkloadEndpoint, int]]) -> list[Admitted | None]:
        """Guard new pods ahead of any turn; None for those of which one is too long, or needed. For any thread.

        Args:
            pods: of this node, each with the index of its interface. Whoever waits for them calls `attach` next.
        """
        if not self._alone.acquire(timeout=LONG_TURN):
            return [None] * len(pods)
        try:
            found = self._turns.admit(pods)
            if any(each is not None for each in found):
                self._nobody_between.clear()
            return found
        finally:
            self._alone.release()

    def attach(self, pods: Sequence[Admitted]) -> list[bool]:
        """Route new pods ahead of any turn; False for those of which one is too long, or needed. For any thread.

        The loop hears of them next.
        """
        if not pods or not self._alone.acquire(timeout=LONG_TURN):
            self._nobody_between.set()  # nobody comes for whom a turn should wait
            return [False] * len(pods)
        try:
            self._coming.update({each.pod.name: each.pod for each in pods})
            routes = self._turns.attach(pods)
        finally:
            self._nobody_between.set()
            self._alone.release()
        self._written.update(
            {each.pod.name: found for each, found in zip(pods, routes, strict=True) if found is not None}
        )
        return [found is not None for found in routes]

    def tell(self, pod: WorkloadEndpoint) -> None:
        """Log the routes that a pod was given by `attach`."""
        tell_of_pod(self._written.pop(pod.name, {}), pod.name)

    def heard(self, news: Iterable[Event]) -> None:
        """Take note of what the loop knows by now; for the loop."""
        for event in news:
            if not isinstance(event, InSync) and event.key.kind == "WorkloadEndpoint":
                self._coming.pop(event.key.name, None)

    def at_last(self, knowledge: Knowledge) -> Knowledge:
        """Return what is known, and those pods besides of which the loop has not heard; for the kernel's thread."""
        keys = {Key("WorkloadEndpoint", pod.name): pod for pod in tuple(self._coming.values())}
        news = [Present(key, pod) for key, pod in keys.items() if knowledge.cluster.resources.get(key) != pod]
        return replace(knowledge, cluster=knowledge.cluster.after_all(news)) if news else knowledge


def turned(
    turns: Turns,
    knowledge: Knowledge,
    keys: list[RouteKey],
    known: tuple[str, ...],
    further: Callable[[], Hearsay | None],
    *,
    resync: bool,
    hold: bool,
) -> tuple[Done, Told]:
    """Turn, and look at the routes that somebody waits for; runs in the kernel's thread.

    Args:
        turns: of this node.
        knowledge: as `Turns.turn` has it.
        keys: the routes that somebody waits for.
        known: problems of the turn before, which are not told again.
        further: as `Turns.turn` has it.
        resync: read everything back first.
        hold: as `Turns.turn` has it.
    """
    kernel, began = turns.kernel, time.thread_time()
    if resync:
        kernel.must_read("resync")
    done = turns.turn(knowledge, further, hold=hold)
    picture = Picture(done.wish, kernel.have, kernel.links, sentences(done.report, kernel.routes))
    standings = {key: turns.standing(key) for key in keys}
    states, refusal = turns.states(), turns.refusal()
    told = sayings(done, kernel.routes, known)
    busy = time.thread_time() - began
    return done, Told(picture, repairs(done.report.routes), states, refusal, standings, busy, told)


def asked(loop: asyncio.AbstractEventLoop, question: Callable[[], Result]) -> Result | None:
    """Have the loop answer a question of the kernel's thread; None where it has ended, and nobody answers any more.

    A question that was not answered in time is taken back: what the loop would say then, nobody would hear.
    """
    answer: Future[Result] = Future()

    def tell() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 - whoever asked is to hear it
            answer.set_exception(error)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        return None
    with contextlib.suppress(TimeoutError):
        return answer.result(PATIENCE)
    # Where it is just being answered, that is worth the wait.
    return None if answer.cancel() else answer.result()
