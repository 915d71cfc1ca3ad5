"""The wanted routes in bytes, and what a new wish changes about the one before."""

from collections.abc import Iterable, Mapping

from felix_py.alike import by_object
from felix_py.kernel import route_codec
from felix_py.kernel.objects import Amended, Route, RouteKey
from felix_py.kernel.route_codec import Encoder, NoDevice


class Wish:
    """Bodies by identity.

    Attributes:
        without_device: identities that cannot be encoded, with the interface that does not exist.
        served: indexes of the interfaces that a wanted route leaves by; it may hold some that none does any more, until
            a wish is taken whole.
    """

    def __init__(self) -> None:
        self.bodies: dict[bytes, bytes] = {}
        self.without_device: dict[bytes, str] = {}
        self.served: frozenset[int] = frozenset()
        self._routes: Mapping[RouteKey, Route] | None = None
        self._indexes: Mapping[str, int] = {}

    def take(
        self, routes: Mapping[RouteKey, Route], indexes: Mapping[str, int], amended: Amended | None = None
    ) -> list[bytes]:
        """Take a wish, whole; return the identities that are wanted otherwise than before, or no more.

        The very same mapping of routes, with the same indexes, costs nothing.

        Args:
            routes: what is wanted now.
            indexes: interface indexes by name.
            amended: how `routes` came about; where it came from what was taken last, only the difference is looked at.
        """
        moved = {name for name, _ in indexes.items() ^ self._indexes.items()}
        if routes is self._routes and not moved:
            return []
        continues = amended is not None and amended.before is self._routes and moved <= amended.moved
        self._routes, self._indexes = routes, indexes
        if amended is not None and continues:
            return self._take_each(amended.news, indexes)
        self.served, self.without_device = frozenset(), {}
        changed = self._take_each(routes, indexes)
        if len(self.bodies) > len(routes) - len(self.without_device):
            changed += self._drop_others(routes)
        return changed

    def _take_each(self, news: Mapping[RouteKey, Route | None], indexes: Mapping[str, int]) -> list[bytes]:
        """Take what is wanted of these keys, and of no others."""
        encoder, changed = Encoder(indexes), list[bytes]()
        for route, keys in by_object(news.keys(), news.values()):
            try:
                named = encoder.named(route, keys) if route is not None else {}
            except NoDevice as missing:
                named, without = {}, dict.fromkeys(map(route_codec.identity_of, keys), missing.device)
            else:
                without = {}
            changed += self._put(named) if named else self._drop(map(route_codec.identity_of, keys))
            self.without_device.update(without)
            if route is not None:
                self.served |= {indexes.get(device, 0) for device in route.devices}
        return changed

    def _put(self, named: Mapping[bytes, bytes]) -> list[bytes]:
        """Want these bodies; return the identities of those that are new."""
        bodies = self.bodies
        if bodies.keys().isdisjoint(named.keys()):  # a table that arrives
            changed = list(named)
        else:
            changed = [name for name, body in named.items() if bodies.get(name) != body]
        bodies.update(named)
        for name in self.without_device.keys() & named.keys() if self.without_device else ():
            del self.without_device[name]
        return changed

    def _drop(self, names: Iterable[bytes]) -> list[bytes]:
        """Want nothing of these identities; return those that were wanted."""
        dropped = []
        for name in names:
            self.without_device.pop(name, None)
            if self.bodies.pop(name, None) is not None:
                dropped.append(name)
        return dropped

    def _drop_others(self, routes: Mapping[RouteKey, Route]) -> list[bytes]:
        wanted = {route_codec.identity_of(key) for key in routes} - self.without_device.keys()
        return self._drop([name for name in self.bodies if name not in wanted])
