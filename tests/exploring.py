"""Explores every interleaving of nodes that run the protocols of `felix_py.claims` on one datastore, crashes included.

A node is a list of jobs, done one after the other. A generator cannot be copied, but it is a function of what it was
told: a state keeps the answers that each node has had, and a node is brought there by telling it them again.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from felix_py.claims import Conflict, Found, Read, Step, Stored, Swap
from felix_py.model import Key

Job: TypeAlias = Callable[[], Generator[Step, Any, Any]]


@dataclass(frozen=True)
class NodeState:
    """How far a node is.

    Attributes:
        number: of the job that it does.
        heard: the answers to the job's steps so far; a Conflict is one, too.
        results: of the jobs that it has done, None where it died meanwhile.
        lives: how often it may die yet.
        knows: by key, what it has read or written last.
    """

    number: int = 0
    heard: tuple[Any, ...] = ()
    results: tuple[Any, ...] = ()
    lives: int = 0
    knows: tuple[tuple[Key, Found], ...] = ()

    def learned(self, key: Key, found: Found | None) -> "tuple[tuple[Key, Found], ...]":
        """Return what it knows after it has read or written a resource."""
        others = [each for each in self.knows if each[0] != key]
        return tuple(sorted((*others, *([(key, found)] if found else [])), key=lambda each: each[0]))


@dataclass(frozen=True)
class World:
    """One state of everything.

    Attributes:
        stored: value by key, None where it was removed, and how often it was written, which is its revision: so the
            order of writes to different keys leaves no trace.
        nodes: how far each node is.
    """

    stored: tuple[tuple[Key, Stored | None, int], ...] = ()
    nodes: tuple[NodeState, ...] = ()

    def found(self, key: Key) -> Found | None:
        return next(
            (Found(value, str(times)) for each, value, times in self.stored if each == key and value is not None), None
        )

    def values(self) -> dict[Key, Stored]:
        return {key: value for key, value, _ in self.stored if value is not None}


LATE = "conflict"

Numbers: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""A world in numbers: of what is stored under each key, and of how far each node is."""

Entry: TypeAlias = tuple[Key, Stored | None, int]


class Explorer:
    """Finds worlds. Whatever is met is numbered once, so that worlds are compared and remembered as a few numbers."""

    def __init__(self, jobs: tuple[tuple[Job, ...], ...]) -> None:
        self._jobs = jobs
        self._entries: dict[Entry, int] = {}
        self._nodes: dict[NodeState, int] = {}
        self._entry_of: list[Entry] = []
        self._node_of: list[NodeState] = []
        self._steps: dict[tuple[int, int], Step | tuple[Any]] = {}

    def worlds(self, start: World) -> Iterator[World]:
        """Yield every world that can be reached, each once."""
        first = tuple(map(self._entry, start.stored)), tuple(map(self._node, start.nodes))
        seen, border = {first}, [first]
        while border:
            numbers = border.pop()
            yield self._world(numbers)
            for after in self._successors(numbers):
                if after not in seen:
                    seen.add(after)
                    border.append(after)

    def _entry(self, entry: Entry) -> int:
        number = self._entries.setdefault(entry, len(self._entries))
        if number == len(self._entry_of):
            self._entry_of.append(entry)
        return number

    def _node(self, node: NodeState) -> int:
        number = self._nodes.setdefault(node, len(self._nodes))
        if number == len(self._node_of):
            self._node_of.append(node)
        return number

    def _world(self, numbers: Numbers) -> World:
        stored, nodes = numbers
        return World(tuple(self._entry_of[each] for each in stored), tuple(self._node_of[each] for each in nodes))

    def _successors(self, numbers: Numbers) -> Iterator[Numbers]:
        stored, nodes = numbers
        for position, number in enumerate(nodes):
            node = self._node_of[number]
            if node.number == len(self._jobs[position]):
                continue
            after, reached = self._stepped(stored, position, number)
            yield after, (*nodes[:position], self._node(reached), *nodes[position + 1 :])
            if node.lives and node.heard:
                # It dies and starts its next job, having forgotten everything.
                results = (*node.results, None)
                dead = NodeState(node.number + 1, results=results, lives=node.lives - 1)
                yield stored, (*nodes[:position], self._node(dead), *nodes[position + 1 :])

    def _stepped(self, stored: tuple[int, ...], position: int, number: int) -> tuple[tuple[int, ...], NodeState]:
        node, step = self._node_of[number], self._steps.get((position, number))
        if step is None:
            step = self._steps[position, number] = _next(self._jobs[position][node.number], node.heard)
        if not isinstance(step, Read | Swap):
            return stored, replace(node, number=node.number + 1, heard=(), results=(*node.results, *step))
        remembered = dict(node.knows).get(step.key) if isinstance(step, Read) and step.remembered else None
        after, answer = (stored, remembered) if remembered else self._done(stored, step)
        return after, replace(node, heard=(*node.heard, answer), knows=_knows(node, step, answer))

    def _done(self, stored: tuple[int, ...], step: Step) -> tuple[tuple[int, ...], Any]:
        before = next((each for each in stored if self._entry_of[each][0] == step.key), None)
        _, value, times = self._entry_of[before] if before is not None else (step.key, None, 0)
        found = Found(value, str(times)) if value is not None else None
        if isinstance(step, Read):
            return stored, found
        if (found.revision if found else None) != step.revision:
            return stored, LATE
        entry = self._entry((step.key, step.value, times + 1))
        others = (each for each in stored if each != before)
        return tuple(sorted((*others, entry), key=lambda each: self._entry_of[each][0])), str(times + 1)


def worlds(start: World, jobs: tuple[tuple[Job, ...], ...]) -> Iterator[World]:
    """Yield every world that can be reached by nodes that do these jobs, each once."""
    return Explorer(jobs).worlds(start)


def _knows(node: NodeState, step: Step, answer: Any) -> tuple[tuple[Key, Found], ...]:
    """Return what a node knows after a step; claims are never taken from memory."""
    if step.key.kind != "IPAMBlock" or answer == LATE:
        return node.knows
    if isinstance(step, Read):
        return node.learned(step.key, answer)
    return node.learned(step.key, Found(step.value, answer) if step.value is not None else None)


def _next(job: Job, heard: tuple[Any, ...]) -> Step | tuple[Any]:
    """Return the step that a job asks for after these answers; its result, in a tuple, where it is done."""
    protocol = job()
    try:
        step = next(protocol)
        for answer in heard:
            step = protocol.throw(Conflict(LATE)) if answer == LATE else protocol.send(answer)
    except StopIteration as end:
        return (end.value,)
    except Conflict:
        return (LATE,)
    return step


def persevering(job: Job, tries: int = 2) -> Job:
    """Return a job that begins anew where a swap came too late, as `drive.persevere` does; not as often as that.

    Two that disturb each other again and again would make a world of each time.
    """

    def run() -> Generator[Step, Any, Any]:
        for _ in range(tries - 1):
            try:
                return (yield from job())
            except Conflict:
                continue
        return (yield from job())

    return run
