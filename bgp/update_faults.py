"""What can be wrong with an UPDATE, and what is done about it (RFC 7606)."""

from dataclasses import dataclass
from enum import IntEnum

UPDATE_ERROR = 3
"""Code of every NOTIFICATION about an UPDATE (RFC 4271 section 6.3)."""


class Subcode(IntEnum):
    """What a NOTIFICATION says is wrong with an UPDATE (RFC 4271 section 4.5)."""

    ATTRIBUTE_LIST = 1
    UNRECOGNIZED = 2
    MISSING = 3
    FLAGS = 4
    LENGTH = 5
    ORIGIN = 6
    NEXT_HOP = 8
    OPTIONAL = 9
    NETWORK = 10
    AS_PATH = 11


class Approach(IntEnum):
    """What is done about an error; of several the strongest, which is the highest (RFC 7606 sections 2 and 3 h)."""

    DISCARD = 1
    WITHDRAW = 2
    RESET = 3


IN_WORDS = {
    Approach.DISCARD: "the attribute was left out",
    Approach.WITHDRAW: "its prefixes were treated as withdrawn",
    Approach.RESET: "the session was closed",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with an UPDATE.

    Attributes:
        data: what a NOTIFICATION about it shows the peer.
    """

    approach: Approach
    subcode: Subcode
    reason: str
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.reason}: {IN_WORDS[self.approach]}"
