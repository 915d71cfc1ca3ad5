"""Two machines and a cable between them, whose addresses are usable at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from spaces import Space


@contextmanager
def joined() -> Iterator[tuple[Space, Space]]:
    """Have two machines with the ends of one veth, each called eth0, and both down."""
    here, there = Space(), Space()
    try:
        for each in (here, there):
            each.parameter("ipv6/conf/default/accept_dad", "0")
        here.ip(f"link add eth0 type veth peer name eth0 netns {there.path}")
        yield here, there
    finally:
        here.close()
        there.close()
