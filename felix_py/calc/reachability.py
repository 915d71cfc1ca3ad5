"""Which BGP next hops this host can send packets to, and by which interface: what the speaker is told of them.

Interfaces and routes of others decide, and no route of ours does: a path that made its own next hop reachable, or that
of another path, would come and go with its own installation. So a next hop inside a pool, or inside a prefix that BGP
taught us, is judged by the routes of the underlay alone, as every other is. A tunnel changes nothing: what it carries
has to get to the next hop all the same.
"""

from bgp.speaker_words import NextHops
from felix_py.calc.next_hops import View, Ways
from felix_py.model import IPAddress


class Reachability:
    """The judgement on next hops by one view of the host, each judged when it is first asked for (RFC 4271, 9.1.2.1).

    | next hop | is reached unless |
    |---|---|
    | in this node's own subnet | no interface has this node's address, or that interface is down |
    | link-local | that interface is down |
    | any other | no route of others leads there, or the interface of the one that does is down |
    """

    def __init__(self, view: View) -> None:
        self._ways = Ways(view)
        self._asked: frozenset[IPAddress] = frozenset()
        self._answer = NextHops({})

    def of(self, next_hops: frozenset[IPAddress]) -> NextHops:
        """Return which of these cannot be reached and why, and by which interface each other one is."""
        if next_hops is not self._asked:
            self._answer = self._after(next_hops - self._asked, self._asked - next_hops)
            self._asked = next_hops
        return self._answer

    def _after(self, new: frozenset[IPAddress], gone: frozenset[IPAddress]) -> NextHops:
        """Return the last answer with some next hops more and some less."""
        obstacles, interfaces = dict(self._answer.obstacles), dict(self._answer.interfaces)
        for next_hop in gone:
            obstacles.pop(next_hop, None)
            interfaces.pop(next_hop, None)
        for next_hop in new:
            route, obstacle = self._ways.straight(next_hop)
            if obstacle is not None:
                obstacles[next_hop] = obstacle
            else:
                # Of several that share the flows the first stands for all: a filter asks for one.
                interfaces[next_hop] = route.devices[0]
        return NextHops(obstacles, interfaces)
