"""The wanted routes in bytes, and what a new wish changes about the one before."""

from collections.abc import Mapping

from felix_py.kernel import route_codec
from felix_py.kernel.objects import Route, RouteKey
from felix_py.kernel.route_codec import Encoder, NoDevice


class Wish:
    """Bodies by identity.

    Attributes:
        without_device: identities that cannot be encoded, with the interface that does not exist.
        served: indexes of the interfaces that a wanted route leaves by.
    """

    def __init__(self) -> None:
        self.bodies: dict[bytes, bytes] = {}
        self.without_device: dict[bytes, str] = {}
        self.served: frozenset[int] = frozenset()
        self._routes: Mapping[RouteKey, Route] | None = None
        self._indexes: Mapping[str, int] = {}

    def take(self, routes: Mapping[RouteKey, Route], indexes: Mapping[str, int]) -> list[bytes]:
        """Take a wish, whole; return the identities that are wanted otherwise than before, or no more.

        The very same mapping of routes, with the same indexes, costs nothing.
        """
        if routes is self._routes and indexes == self._indexes:
            return []
        self._routes, self._indexes = routes, indexes
        changed = self._take_each(routes, indexes)
        if len(self.bodies) + len(self.without_device) > len(routes):
            changed += self._drop_others(routes)
        distinct = {id(route): route for route in routes.values()}.values()  # many routes are one object
        devices = {device for route in distinct for device in route.devices}
        self.served = frozenset(indexes.get(device, 0) for device in devices)
        return changed

    def _take_each(self, routes: Mapping[RouteKey, Route], indexes: Mapping[str, int]) -> list[bytes]:
        # The loop over everything that a node wants: what is local here is local for speed.
        encode, identity, bodies, changed = Encoder(indexes), route_codec.identity, self.bodies, []
        self.without_device = {}
        for key, route in routes.items():
            try:
                body = encode(key, route)
            except NoDevice as missing:
                self.without_device[route_codec.identity_of(key)] = missing.device
                continue
            name = identity(body)
            if bodies.get(name) != body:
                bodies[name] = body
                changed.append(name)
        return changed

    def _drop_others(self, routes: Mapping[RouteKey, Route]) -> list[bytes]:
        wanted = {route_codec.identity_of(key) for key in routes} - self.without_device.keys()
        dropped = [name for name in self.bodies if name not in wanted]
        for name in dropped:
            del self.bodies[name]
        return dropped
