"""The list of scenarios, and what most of them begin with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from daemons import PLAIN, Daemon, Neighbour
from felix_node import OWN_AS, Document, FelixNode, block, configuration, node, peer, pool
from interop_lab import ADDRESSES, BLOCKS, D1, D1_BLOCK, N1, TOR_AS, Lab, until

Play: TypeAlias = Callable[[Lab], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that has to work with every daemon.

    Attributes:
        number: of the list in docs/interop.md; a letter after it marks a further part.
        pending: what of ours it waits for, by daemon or for `all`; it has to fail until then.
        cannot: by daemon, what that one is unable to do; `refuse` proves it.
    """

    number: str
    title: str
    play: Play
    pending: Mapping[str, str] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    refuse: Play | None = None


SCENARIOS: list[Scenario] = []


def scenario(
    number: str,
    title: str,
    *,
    pending: Mapping[str, str] | str = "",
    cannot: Mapping[str, str] | None = None,
    refuse: Play | None = None,
) -> Callable[[Play], Play]:
    """Register a scenario."""
    waits = {"all": pending} if isinstance(pending, str) and pending else pending or {}

    def register(play: Play) -> Play:
        assert isinstance(waits, Mapping)
        SCENARIOS.append(Scenario(number, title, play, waits, cannot or {}, refuse))
        return play

    return register


def base(name: str, *more: Document, mesh: bool = False, asn: int | None = None, **bgp: object) -> tuple[Document, ...]:
    """Return the resources of a node with a block and a pool, and more."""
    own = {"asNumber": asn} if asn else {}
    return (
        configuration(mesh=mesh, **bgp),
        node(name, ADDRESSES[name], **own),
        pool(),
        block(name, BLOCKS[name]),
        *more,
    )


def one_router(lab: Lab, *, asn: int = TOR_AS, own_as: int = OWN_AS, **neighbour: object) -> Daemon:
    """Return a daemon that has our node as its neighbour, and a block of its own."""
    made = lab.daemon("d1", asn, Neighbour(N1, own_as, **neighbour))  # type: ignore[arg-type]
    made.announce({D1_BLOCK: PLAIN})
    return made


def pair(
    lab: Lab, *, asn: int = TOR_AS, peer_spec: Mapping[str, object] | None = None, **neighbour: object
) -> tuple[FelixNode, Daemon]:
    """Return a node of ours and a daemon whose session is up, and which have each other's block."""
    router = one_router(lab, asn=asn, **neighbour)  # type: ignore[arg-type]
    ours = lab.felix("n1", *base("n1", peer(D1, asn, **(peer_spec or {}))))
    converged(ours, router)
    return ours, router


def converged(ours: FelixNode, router: Daemon) -> None:
    """Wait until the router's block is in our kernel, and our block in the router's table."""
    until(lambda: ours.forwards(D1_BLOCK), f"the router's block is in our kernel: {ours.session(D1)}")
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")
