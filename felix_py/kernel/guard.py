"""What our programs at pods' interfaces let pass, as a value: each pod's own addresses, and interfaces of nobody's."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from felix_py.model import IPAddress

WORDS_SHOWN = 3
"""Interfaces that a plan names; of more it tells the number."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What the programs know, or should know.

    Attributes:
        sources: what each pod may send from, by the host's end of its veth.
        refused: interfaces of pods' kind that no known pod has: nothing passes, either way.
        ports: of UDP, to which tunnels send; pods may not. So they may not send IP in IP.
    """

    sources: Mapping[str, frozenset[IPAddress]] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()


def admitted(guard: Guard, pods: Iterable[tuple[str, frozenset[IPAddress]]]) -> Guard:
    """Return what lets more pods send, each by its interface and from its addresses."""
    more = dict(pods)
    return replace(guard, sources={**guard.sources, **more}, refused=guard.refused - more.keys())


def difference(want: Guard, have: Guard | None) -> str:
    """Say in one line what has to change."""
    before = have if have is not None else Guard()
    parts = [] if have is not None else ["no programs of ours are there"]
    if want.ports != before.ports:
        parts.append(f"tunnels at UDP port {', '.join(map(str, sorted(want.ports)))}")
    changed = sorted({*_changes(want, before)})
    parts += changed[:WORDS_SHOWN]
    if len(changed) > WORDS_SHOWN:
        parts.append(f"{len(changed) - WORDS_SHOWN} interfaces more")
    return "; ".join(parts) or "nothing"


def _changes(want: Guard, have: Guard) -> Iterator[str]:
    for name, addresses in want.sources.items():
        if have.sources.get(name) != addresses:
            yield f"{name} from {', '.join(sorted(map(str, addresses)))} only"
    for name in want.refused - have.refused:
        yield f"{name} of no known pod"
    known = {*want.sources, *want.refused}
    for name in {*have.sources, *have.refused} - known:
        yield f"{name} forgotten"
