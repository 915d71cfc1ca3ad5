"""Who stands beside the loop: BGP, which tells it paths, and whoever looks on."""

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from bgp.speaker import BestPath, SpeakerSettings
from bgp.speaker_words import NextHops
from bgp.types import IPAddress, IPNetwork
from felix_py.calc.hearsay import Changes
from felix_py.knowledge import Done


class RouteSpeaker(Protocol):
    """What the loop needs of BGP; `bgp.exabgp_process.BgpService` is the real one."""

    def configure(self, settings: SpeakerSettings) -> None:
        """Hold these sessions and announce these prefixes from now on."""

    def best_paths(self) -> Mapping[IPNetwork, BestPath]:
        """Return the Loc-RIB, and of prefixes none of whose next hops can be reached what would be the best path."""

    def changes(self) -> Changes | None:
        """Return what has changed in it since this was asked last; None where all of it may have."""

    def peer_name(self, path: BestPath) -> str:
        """Name who told us the path."""

    def converged(self) -> bool:
        """Say whether absence of a path means something by now."""

    def selecting(self) -> bool:
        """Say whether best paths are worth acting upon; before that, routes of the agent before this one stay."""

    def next_hops(self) -> frozenset[IPAddress]:
        """Return the next hops of which it matters whether they can be reached."""

    def tell(self, event: NextHops) -> None:
        """Take note of which of them can be; those of which nothing was said count as if they could."""


class Onlooker(Protocol):
    """Whoever wants to know of every turn; `observation.Observation` is the real one."""

    def turned(self, done: Done, repairs: Counter[str], states: Mapping[str, int], refusal: str | None) -> None:
        """Take note of a turn that went well.

        Args:
            done: what it did.
            repairs: how many routes had to be put right, by cause.
            states: how many routes are in each state.
            refusal: the reason of one that the kernel refuses, if there is any.
        """

    def failed(self, reason: str) -> None:
        """Take note of a turn in which the kernel could not be read or written."""
