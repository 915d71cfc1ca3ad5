"""Pods' interfaces that were admitted since the last look: as whoever made them says, unless somebody touched them."""

from collections import Counter
from collections.abc import Callable, Mapping

from felix_py.kernel.objects import Link

OWN = 1
"""Changes of programs at an interface that admitting it comes to, where nothing stood there before."""


class Newcomers:
    """Tells which of them need no look at parameters and programs.

    The kernel tells of every program that comes or goes, also of ours, and does not say in time whose it is: so they
    are counted. What is set while an interface is made the kernel tells before it tells of the interface itself.
    """

    def __init__(self) -> None:
        self._admitted: dict[str, tuple[int, Callable[[], Mapping[str, str]]]] = {}
        self._programs: Counter[str] = Counter()
        self._changed: set[str] = set()

    def come(self, link: Link, parameters: Callable[[], Mapping[str, str]]) -> None:
        """Take one that has its program.

        Args:
            link: the interface.
            parameters: returns what was set of it, by path below /proc/sys; the pod need not wait for that.
        """
        self._admitted[link.name] = link.index, parameters

    def program_changed(self, name: str) -> None:
        """Take note that a program came to an interface, or went."""
        self._programs[name] += 1

    def parameter_changed(self, name: str) -> None:
        """Take note that a parameter of an interface changed that was known already."""
        self._changed.add(name)

    def gone(self, name: str) -> None:
        """Take note that an interface of this name went; another one may have it by now."""
        self._changed.add(name)

    def knows(self, name: str) -> bool:
        """Say whether an interface of this name was admitted."""
        return name in self._admitted

    def untouched(self, links: Mapping[str, Link]) -> dict[str, Mapping[str, str]]:
        """Return the parameters of those that nobody has touched, by interface.

        Args:
            links: all interfaces by name, as they are now.
        """
        return {
            name: parameters()
            for name, (index, parameters) in self._admitted.items()
            if self._is_same(links.get(name), index) and self._programs[name] <= OWN and name not in self._changed
        }

    @staticmethod
    def _is_same(link: Link | None, index: int) -> bool:
        return link is not None and link.index == index

    def forget(self) -> None:
        """Begin anew: everything was looked at, or needed no look."""
        self._admitted.clear()
        self._programs.clear()
        self._changed.clear()
