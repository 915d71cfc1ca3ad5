"""What tests of exchanges with the kernel ask it; `functions` and `here` of conftest.py are both ways, and where."""

from felix_py.kernel import links
from felix_py.kernel.link_changes import Change
from felix_py.kernel.messages import ACK, messages

LOOPBACK = 1

UNKNOWN = Change("nothing that the kernel knows", 4000, ACK, bytes(16))
"""A request that is refused, as is one of a later kernel."""


def look(*changes: Change, interface: str | int = LOOPBACK) -> tuple[bytes, int]:
    """Return changes and a look at an interface as messages, and the number of the last one."""
    requests = links.with_look(changes, interface)
    return links.packed(requests), len(requests) - 1


def numbers(answers: bytes) -> list[tuple[int, int]]:
    """Return number and kind of each answer."""
    return [(number, kind) for kind, _, number, _, _ in messages(answers)]
