"""What the agent asks of a datastore."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from bgp.report import PeerReport
from felix_py.claims import Found, Stored
from felix_py.model import Key, NodeName
from felix_py.state import Event


class Datastore(Protocol):
    """Tells the news of the cluster, and what is wrong with what it was given."""

    def events(self) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield batches of news for ever; the first ends with InSync."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the resources as they are now, one sentence each."""
        ...


class Swaps(Protocol):
    """Blocks and claims, which all nodes change; a change is durable when the call returns. For any thread."""

    def read(self, key: Key) -> Found | None:
        """Return a resource as it is now; None where there is none.

        Raises:
            Damaged: when it is there and cannot be understood.
            OSError: when it cannot be read.
        """
        ...

    def known(self, key: Key) -> Found | None:
        """Return a resource as it was read or written here last, without a look; None where it never was."""
        ...

    def listing(self, kind: str, of: NodeName | None = None) -> tuple[tuple[Found, ...], tuple["Damaged", ...]]:
        """Return resources of one kind, by name; and what cannot be understood.

        Args:
            kind: `IPAMBlock` or `BlockAffinity`.
            of: those suffice that this node has claimed, or that hold something for it; None for all.
        """
        ...

    def swap(self, key: Key, value: Stored | None, revision: str | None) -> str:
        """Change a resource if it still has this revision, and return the new one.

        Args:
            key: which one.
            value: what it is to be; None removes it.
            revision: None where it must not exist.

        Raises:
            Conflict: it is another one by now; nothing was changed.
            Damaged: it is there and cannot be understood; nothing was changed.
            OSError: nothing was changed.
        """
        ...

    def put_aside(self, damaged: "Damaged") -> None:
        """Take what cannot be understood out of the way, for people to look at."""
        ...


class Changes(Protocol):
    """Lets somebody wait until anything has changed that people may see; `news.News` is the real one."""

    @property
    def number(self) -> int:
        """How many changes there were."""
        ...

    async def changed(self, after: int, seconds: float) -> None:
        """Wait until there were more than `after`, for some seconds at most."""
        ...


class Sight(NamedTuple):
    """What a datastore that other people read may tell them of this agent.

    Attributes:
        ready: says whether the routes of this node are in, if that has been waited for since a moment.
        sessions: reports BGP's sessions, without counts.
        changes: to wait for.
    """

    ready: Callable[[float], bool]
    sessions: Callable[[], tuple[PeerReport, ...]]
    changes: Changes


class Store(NamedTuple):
    """A datastore as an agent uses it.

    Attributes:
        resources: where they come from.
        swaps: where addresses are written down.
        tending: seconds between two looks at all that is written down.
        keeping: what has to run besides, by name.
        restored: set when what is written down may have been lost and can be written anew; None where nobody says.
    """

    resources: Datastore
    swaps: Swaps
    tending: float
    keeping: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] = {}
    restored: asyncio.Event | None = None


class Damaged(Exception):  # noqa: N818 - named for what it is
    """A stored resource that cannot be understood.

    Attributes:
        key: which one.
        place: where it lies.
        why: what is wrong with it.
    """

    def __init__(self, key: Key, place: str, why: str) -> None:
        super().__init__(f"{place} is damaged ({why})")
        self.key = key
        self.place = place
        self.why = why


class Unavailable(OSError):  # noqa: N818 - named for what it says of the datastore
    """A datastore at the other end of a network did not do what it was asked for; nothing was changed.

    Attributes:
        remedy: what to do.
    """

    def __init__(self, number: int, words: str, place: str, remedy: str) -> None:
        super().__init__(number, words, place)
        self.remedy = remedy
