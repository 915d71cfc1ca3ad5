"""The wish of a node whose pods have come and gone, from the one before: only what they touch is worked out anew.

There is no second rule that could differ: the functions by which `desired` wants something for all pods are asked for
some of them here, and whatever is not plain is left to `desired`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from felix_py.calc import candidates, endpoints, netfilter, routes
from felix_py.calc.desired import Basis, Desired, concluded
from felix_py.kernel import ownership
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.guard import Guard
from felix_py.kernel.objects import IPV6, KernelState, Link, Route, RouteKey
from felix_py.model import BlockAffinity, IPPool, Node, NodeName, WorkloadEndpoint
from felix_py.state import ClusterState

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Moment:
    """What pods change of all that a wish follows from."""

    cluster: ClusterState
    links: Mapping[str, Link]


@dataclass(frozen=True, slots=True)
class _Pods:
    """The pods that have one of some interfaces, at one moment."""

    pods: tuple[WorkloadEndpoint, ...]
    links: Mapping[str, Link]

    def keys(self) -> dict[RouteKey, None]:
        return {RouteKey(network): None for pod in self.pods for network in pod.networks}

    def parameters(self) -> Iterator[str]:
        """Yield the path of every parameter that may be wanted for them."""
        for pod in self.pods:
            yield from (path for path, _ in endpoints.of_workload(pod.interface, ipv6=True))

    @property
    def have_ipv6(self) -> bool:
        return any(network.version == IPV6 for pod in self.pods for network in pod.networks)


def repodded(
    before: Desired, was: Moment, now: Moment, me: NodeName, underlay: Mapping[RouteKey, Route]
) -> Desired | None:
    """Return what `desired` would, at the price of the pods that have changed; None where it has to be asked.

    Args:
        before: the wish of the moment before, of which nothing was kept from an agent before this one.
        was: that moment.
        now: this one; all else that the wish depends on is as it was then.
        me: this node.
        underlay: routes of the main table that are not ours.
    """
    basis, moved = before.basis, _moved(was.links, now.links, underlay)
    if basis is None or moved is None or not _alike(was.cluster, now.cluster, me):
        return None
    old, new = (_local(moment.cluster, me) for moment in (was, now))
    interfaces = frozenset(moved | {pod.interface for pod in _differing(old, new)})
    before_them, after_them = (
        _Pods(tuple(pod for pod in pods if pod.interface in interfaces), moment.links)
        for pods, moment in ((old, was), (new, now))
    )
    ipv6 = before_them.have_ipv6 or after_them.have_ipv6
    if bool(old) != bool(new) or (ipv6 and not any(pool.cidr.version == IPV6 for pool in _pools(now.cluster))):
        return None  # the way to the gateway, or whether this host routes IPv6
    if not all(map(ownership.is_workload_device, interfaces)):
        return None  # of which more may be wanted than what pods need
    felix = now.cluster.felix(me)
    sources = felix.device_route_source, felix.device_route_source6
    return _amended(before, basis, interfaces, before_them, after_them, sources)


def _amended(
    before: Desired,
    basis: Basis,
    interfaces: frozenset[str],
    old: _Pods,
    new: _Pods,
    sources: tuple[IPv4Address | None, IPv6Address | None],
) -> Desired | None:
    view = replace(basis.remotes.view, links=new.links)
    standing = candidates.by_key(routes.workloads(view, new.pods, *sources))
    gone = old.keys()
    contested = any(key in before.lost or len(basis.standing.get(key, ())) != 1 for key in gone)
    contested |= any(key in before.chosen and key not in gone for key in standing)
    if contested or any(len(group) != 1 for group in standing.values()):
        return None
    tables = before.tables.copy()
    touched = tables.take({**gone, **dict.fromkeys(standing)}, None, standing)
    kept = _without(basis.standing, gone)
    state = _state(before, interfaces, old, new)
    after = replace(before, state=state, basis=replace(basis, standing={**kept, **standing}))
    return concluded(after, tables, touched, interfaces)


def _state(before: Desired, interfaces: frozenset[str], old: _Pods, new: _Pods) -> KernelState:
    """Return what is wanted besides routes."""
    state = before.state
    sysctls = _without(state.sysctls, old.parameters())
    for pod in new.pods:
        if pod.interface in new.links:
            has_ipv6 = any(network.version == IPV6 for network in pod.networks)
            sysctls.update(endpoints.of_workload(pod.interface, ipv6=has_ipv6))
    pod_links = _without(state.pod_links, interfaces)
    pod_links.update(endpoints.pod_links(new.pods, new.links, before.pod_mtu.value))
    guards = state.guard is None and state.netfilter is not None
    return replace(
        state,
        sysctls=sysctls,
        pod_links=pod_links,
        guard=_guard(state.guard, interfaces, new) if state.guard is not None else None,
        netfilter=_table(state.netfilter, old, new) if guards and state.netfilter is not None else state.netfilter,
    )


def _without(before: Mapping[_Key, _Value], keys: Iterable[_Key]) -> dict[_Key, _Value]:
    """Return a mapping without some keys; the others are not looked at."""
    found = dict(before)
    for key in keys:
        found.pop(key, None)
    return found


def _guard(before: Guard, interfaces: frozenset[str], new: _Pods) -> Guard:
    part = netfilter.guard(new.pods, interfaces & new.links.keys(), {})
    sources = _without(before.sources, interfaces)
    return replace(before, sources={**sources, **part.sources}, refused=(before.refused - interfaces) | part.refused)


def _table(before: FilterTable, old: _Pods, new: _Pods) -> FilterTable:
    gone, come = netfilter.elements_of(old.pods), netfilter.elements_of(new.pods)
    elements = {
        name: (before.elements.get(name, frozenset()) - gone.get(name, frozenset())) | come.get(name, frozenset())
        for name in {**before.elements, **come}
    }
    return FilterTable(before.rules, {name: each for name, each in elements.items() if each})


def _moved(was: Mapping[str, Link], now: Mapping[str, Link], underlay: Mapping[RouteKey, Route]) -> set[str] | None:
    """Return the interfaces that have changed; None where they may be more to a wish than pods' interfaces are."""
    if was is now:
        return set()
    moved = {name for name, link in now.items() if was.get(name) is not link} | (was.keys() - now.keys())
    for name in moved:
        held = [link.addresses for link in (was.get(name), now.get(name)) if link is not None]
        if not ownership.is_workload_device(name) or any(held):
            return None  # it leads to other nodes, or might have this node's address
    if moved and any(device in moved for route in underlay.values() for device in route.devices):
        return None
    return moved


def _alike(was: ClusterState, now: ClusterState, me: NodeName) -> bool:
    """Say whether two clusters differ in nothing but pods, as far as a wish depends on it."""
    if was is now:
        return True
    others = was.of(Node) == now.of(Node) and was.of(BlockAffinity) == now.of(BlockAffinity)
    return others and was.of(IPPool) == now.of(IPPool) and was.felix(me) == now.felix(me)


def _pools(cluster: ClusterState) -> Iterable[IPPool]:
    return (pool for pool in cluster.of(IPPool) if not pool.disabled)


def _local(cluster: ClusterState, me: NodeName) -> list[WorkloadEndpoint]:
    return [pod for pod in cluster.of(WorkloadEndpoint) if pod.node == me]


def _differing(old: Iterable[WorkloadEndpoint], new: Iterable[WorkloadEndpoint]) -> Iterator[WorkloadEndpoint]:
    """Yield the pods that are there at one moment only; one that has become another is both."""
    first, second = ({id(pod): pod for pod in pods} for pods in (old, new))
    yield from (first[name] for name in first.keys() - second.keys())
    yield from (second[name] for name in second.keys() - first.keys())
