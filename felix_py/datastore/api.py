"""What the agent asks of a datastore."""

from collections.abc import AsyncIterator
from typing import Protocol

from felix_py.state import Event


class Datastore(Protocol):
    """Tells the news of the cluster, and what is wrong with what it was given."""

    def events(self) -> AsyncIterator[tuple[Event, ...]]:
        """Yield batches of news for ever; the first ends with InSync."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """Every fault of the resources as they are now, one sentence each."""
        ...
