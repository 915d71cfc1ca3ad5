"""A node for which BGP has nothing to say yet, for ever perhaps: it thinks when something has changed, and not else."""

from ipaddress import IPv4Address, IPv4Network

from builders import block, link, node, pool
from fakes import FakeHost, FakeParameters, FakeTunnels
from faulty_wire import FaultyWire
from test_amending import best

from felix_py.calc.hearsay import Hearsay
from felix_py.kernel.kernel import Kernel
from felix_py.kernel.objects import KernelRefused, RouteKey
from felix_py.kernel.purge import NoPurger
from felix_py.knowledge import Knowledge
from felix_py.model import IpipMode, NodeName
from felix_py.state import ClusterState, InSync
from felix_py.turn import Turns

A1 = NodeName("a1")
LEFT = RouteKey(IPv4Network("10.65.0.64/26"))
CLUSTER = ClusterState().after_all(
    [
        node("a1", "172.31.1.11/24"),
        pool(cidr="10.65.0.0/16", mode=IpipMode.NEVER),
        block("a1", "10.65.0.0/26"),
        InSync(),
    ]
)


NOTHING = Hearsay()


def agent(host: FakeHost) -> Turns:
    parts = (FaultyWire(host), FakeTunnels(host), KernelRefused, FakeParameters(host), NoPurger())
    return Turns(Kernel(*parts), A1, lambda: 0.0)


def made() -> tuple[FakeHost, Turns]:
    """Return a node on which an agent had a route to another one, and the agent after it."""
    host = FakeHost(link("eth0", "172.31.1.11/24"))
    told = best(IPv4Address("172.31.1.12"), "one", stale=False, equal=[])
    agent(host).turn(Knowledge(CLUSTER, Hearsay().after([(LEFT.dst, told)], str)))
    assert LEFT in host.routes
    return host, agent(host)


def test_it_thinks_once_however_often_it_turns() -> None:
    host, turns = made()
    first = turns.turn(Knowledge(CLUSTER, NOTHING, converged=False, selecting=False)).wish
    assert LEFT in first.state.routes, "the route of the agent before this one stays"
    for _ in range(3):
        assert turns.turn(Knowledge(CLUSTER, NOTHING, converged=False, selecting=False)).wish is first
    assert LEFT in host.routes


def test_it_thinks_again_when_something_has_changed() -> None:
    host, turns = made()
    first = turns.turn(Knowledge(CLUSTER, NOTHING, converged=False, selecting=False)).wish
    selecting = turns.turn(Knowledge(CLUSTER, NOTHING, converged=False)).wish
    assert selecting is not first
    more = CLUSTER.after_all([node("a2", "172.31.1.12/24")])
    assert turns.turn(Knowledge(more, NOTHING, converged=False)).wish is not selecting
    converged = turns.turn(Knowledge(more, NOTHING)).wish
    assert LEFT not in converged.state.routes
    assert LEFT not in host.routes
