"""What one go at the routes did: columns of bytes, so that 100,000 cost little; decoded where somebody looks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from felix_py.kernel.holds import Hold
from felix_py.kernel.next_hop_table import NextHopPut


class Written(NamedTuple):
    """One route that was written.

    Attributes:
        old: the body that stood there; None for an addition.
        new: the body that stands there now; None for a removal.
        cause: what others did that made it necessary; None where our own wish changed.
    """

    identity: bytes
    old: bytes | None
    new: bytes | None
    cause: str | None


@dataclass(slots=True)
class Batch:
    """Writes of one kind; the columns have one length."""

    identities: Sequence[bytes]
    old: Sequence[bytes | None]
    new: Sequence[bytes | None]
    causes: Sequence[str | None]

    def __iter__(self) -> Iterator[Written]:
        """Iterate row by row."""
        return map(Written, self.identities, self.old, self.new, self.causes)


@dataclass(slots=True)
class Outcome:
    """Everything that one go did, and what it could not do.

    Attributes:
        refused: routes that the kernel refused now, with when they are tried again; by identity.
        contested: identities that others have just begun to change too often.
        calm: identities of which that is over.
        conflicts: somebody else's routes that are newly in our way, by identity.
        next_hops: objects that were made or replaced.
        next_hops_gone: IDs of objects that were removed.
        broken: why it is unknown what was done, and everything has to be read again.
    """

    batches: list[Batch] = field(default_factory=list)
    refused: dict[bytes, Hold] = field(default_factory=dict)
    contested: list[bytes] = field(default_factory=list)
    calm: tuple[bytes, ...] = ()
    conflicts: dict[bytes, bytes] = field(default_factory=dict)
    next_hops: list[NextHopPut] = field(default_factory=list)
    next_hops_gone: list[int] = field(default_factory=list)
    broken: str | None = None

    @property
    def writes(self) -> Iterator[Written]:
        """Everything that was written, in order."""
        for batch in self.batches:
            yield from batch

    def __len__(self) -> int:
        return sum(len(batch.identities) for batch in self.batches)
