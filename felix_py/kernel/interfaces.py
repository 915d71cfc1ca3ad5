"""The interfaces of this host: a mirror that events keep up to date, so that nobody has to list them again."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from felix_py.kernel.objects import Link
from felix_py.kernel.wire import AddressEvent, LinkEvent


class LinkNews(StrEnum):
    """What happened to an interface, as a person says it."""

    ADDED = "added"
    GONE = "gone"
    RENAMED = "renamed"
    UP = "up"
    DOWN = "down"
    CARRIER = "carrier"
    NO_CARRIER = "no carrier"
    MTU = "MTU changed"
    ADDRESSES = "addresses changed"


@dataclass(frozen=True, slots=True)
class LinkChange:
    """One interface before and after; None where it did not or does not exist."""

    before: Link | None
    after: Link | None

    @property
    def name(self) -> str:
        """The name by which it is, or was, known."""
        link = self.after or self.before
        return link.name if link else ""

    @property
    def index(self) -> int:
        """Its index, which a new interface of the same name does not have."""
        link = self.after or self.before
        return link.index if link else 0

    @property
    def lost_routes(self) -> bool:
        """Whether the kernel dropped the routes out of it, without telling: it went down, or is gone."""
        return self.before is not None and self.before.up and not (self.after and self.after.up)

    @property
    def lost_objects(self) -> bool:
        """Whether the kernel dropped its next-hop objects and their routes, without telling: the carrier suffices."""
        return self.before is not None and self.before.running and not (self.after and self.after.running)

    @property
    def lost_address(self) -> bool:
        """Whether an address went, with which the kernel may have dropped routes, without telling."""
        return self.before is not None and self.after is not None and bool(self.before.addresses - self.after.addresses)

    def news(self) -> Iterator[LinkNews]:
        """Say what happened."""
        old, new = self.before, self.after
        if old is None or new is None:
            yield LinkNews.GONE if new is None else LinkNews.ADDED
            return
        if old.name != new.name:
            yield LinkNews.RENAMED
        if old.up != new.up:
            yield LinkNews.UP if new.up else LinkNews.DOWN
        elif old.running != new.running:
            yield LinkNews.CARRIER if new.running else LinkNews.NO_CARRIER
        if old.mtu != new.mtu:
            yield LinkNews.MTU
        if old.addresses != new.addresses:
            yield LinkNews.ADDRESSES


class Interfaces:
    """All interfaces by index; every method returns what it changed."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._names: dict[str, Link] | None = None

    @property
    def by_name(self) -> Mapping[str, Link]:
        """All interfaces by name; the same object until something changes."""
        if self._names is None:
            self._names = {link.name: link for link in self._links.values()}
        return self._names

    @property
    def by_index(self) -> Mapping[int, Link]:
        """All interfaces by index."""
        return self._links

    @property
    def names(self) -> Mapping[int, str]:
        """All names by index."""
        return {index: link.name for index, link in self._links.items()}

    def replace(self, links: Iterable[Link]) -> tuple[LinkChange, ...]:
        """Take a full listing."""
        new = {link.index: link for link in links}
        gone = [change for index in list(self._links) if index not in new for change in self._set(index, None)]
        return (*gone, *(change for index, link in new.items() for change in self._set(index, link)))

    def see(self, event: LinkEvent | AddressEvent) -> tuple[LinkChange, ...]:
        """Take an event; one about an interface that was never seen waits for the interface's own."""
        match event:
            case LinkEvent(link, gone=True):
                return self._set(link.index, None)
            case LinkEvent(link):
                known = self._links.get(link.index)
                return self._set(link.index, replace(link, addresses=known.addresses if known else frozenset()))
            case AddressEvent(index, address, gone):
                known = self._links.get(index)
                if known is None:
                    return ()
                addresses = known.addresses - {address} if gone else known.addresses | {address}
                return self._set(index, replace(known, addresses=addresses))

    def _set(self, index: int, link: Link | None) -> tuple[LinkChange, ...]:
        before = self._links.get(index)
        if before == link:
            return ()
        if link is None:
            del self._links[index]
        else:
            self._links[index] = link
        self._names = None
        return (LinkChange(before, link),)
