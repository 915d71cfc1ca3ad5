"""From what is and what should be to what has to be done; pure, so that it can be argued about with literals."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from felix_py.kernel import filter_table, guard, ownership, route_codec
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.objects import (
    DeleteFilterTable,
    DeleteGuard,
    DeleteRoute,
    DeleteTunnel,
    KernelState,
    Link,
    PodLink,
    PutFilterTable,
    PutGuard,
    PutPodLink,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Step,
    Tunnel,
)
from felix_py.kernel.wire import Mode
from vxlan.tunnel import Vxlan, before_routes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has to be done about the routes of one identity, and by which rule.

    Attributes:
        put: the body to write; None when it stands there, may not, or nobody wants one.
        mode: how: EXCLUSIVE where nothing is known to stand, so that a stranger who came in between is not overwritten.
        delete: bodies of ours to take away, each exactly.
        in_the_way: somebody else's route that is left alone, so that ours cannot be.
    """

    rule: str
    put: bytes | None = None
    mode: Mode = Mode.CREATE | Mode.EXCLUSIVE
    delete: tuple[bytes, ...] = ()
    in_the_way: bytes | None = None


def judge(want: bytes | None, stack: tuple[bytes, ...], owned: Callable[[bytes], bool]) -> Verdict:
    """Decide about one identity; the first rule that fits.

    Args:
        want: the body that should stand there; None where none should.
        stack: the bodies that do, the one that counts first.
        owned: says whether a body is ours to change and remove.
    """
    ours_besides = tuple(body for body in stack if body != want and owned(body))
    if want is None:
        return Verdict("nobody wants it", delete=ours_besides)
    if not stack:
        return Verdict("nothing stands there", put=want)
    first = stack[0]
    if first == want:
        return Verdict("it stands there", delete=ours_besides)
    if not owned(first) and ownership.standing(route_codec.protocol_of(first)) is ownership.Standing.LEAVE:
        return Verdict("somebody else's, left alone", delete=ours_besides, in_the_way=first)
    if want in stack:
        return Verdict("it stands behind another", delete=tuple(dict.fromkeys((first, *ours_besides))))
    besides = tuple(body for body in ours_besides if body != first)
    return Verdict("replaced in place", put=want, mode=Mode.CREATE | Mode.REPLACE, delete=besides)


def filter_to_put(want: KernelState, have: KernelState, cause: str = "wanted") -> Iterator[PutFilterTable]:
    """Yield what comes before all else: the packet filter, so that nothing is carried that it would not let pass."""
    if want.netfilter is not None and want.netfilter != have.netfilter:
        yield PutFilterTable(want.netfilter, have.netfilter, cause)


def guards_pods(table: FilterTable) -> bool:
    """Say whether a table guards pods, or leaves that to the programs at their interfaces."""
    return filter_table.OF_PODS in table.rules


def leaves_pods(want: FilterTable, have: FilterTable | None) -> bool:
    """Say whether the table guards pods now and would no longer."""
    return have is not None and guards_pods(have) and not guards_pods(want)


def guard_to_put(want: KernelState, have: KernelState) -> Iterator[PutGuard]:
    """Yield what comes before all else too: what pods' interfaces let pass."""
    # Without an interface that a program could be attached to, there is nothing to be seen of a guard.
    if want.guard is not None and want.guard != have.guard and (have.guard or want.guard.sources or want.guard.refused):
        yield PutGuard(want.guard, have.guard)


def guard_to_remove(want: KernelState, have: KernelState) -> Iterator[DeleteGuard]:
    """Yield what comes after all else: programs that nobody wants any more."""
    if want.guard is None and have.guard is not None:
        yield DeleteGuard()


def parameters_and_tunnels(want: KernelState, have: KernelState) -> Iterator[Step]:
    """Yield what comes before the routes: parameters, tunnels beside all that routes may lead to, and pods' MTUs."""
    if want.sysctls != have.sysctls:
        yield from (PutSysctl(path, value) for path, value in want.sysctls.items() if have.sysctls.get(path) != value)
    for name, tunnel in want.tunnels.items():
        found = have.tunnels.get(name)
        first = _with_what_stands(tunnel, found)
        if found != first:
            yield PutTunnel(first)
    # A veth that is not there is made with the right one.
    yield from (
        PutPodLink(name, each) for name, each in want.pod_links.items() if have.pod_links.get(name, each) != each
    )


def pod_links_as_they_are(want: Mapping[str, PodLink], links: Mapping[str, Link]) -> dict[str, PodLink]:
    """Return what is wanted of pods' veths with the MTU that the host's end has, of those that exist."""
    return {
        name: each if links[name].mtu == each.mtu else replace(each, mtu=links[name].mtu)
        for name, each in want.items()
        if name in links
    }


def after_routes(want: KernelState, have: KernelState) -> Iterator[PutTunnel | DeleteTunnel]:
    """Yield what comes after the routes: what nobody wants any more in tunnels, and tunnels that nobody does."""
    for name, tunnel in want.tunnels.items():
        if _with_what_stands(tunnel, have.tunnels.get(name)) != tunnel:
            yield PutTunnel(tunnel)
    yield from (DeleteTunnel(name) for name in have.tunnels if name not in want.tunnels)


def _with_what_stands(tunnel: Tunnel, found: Tunnel | None) -> Tunnel:
    if found != tunnel and isinstance(tunnel, Vxlan) and isinstance(found, Vxlan):
        return before_routes(tunnel, found)
    return tunnel


def filter_to_remove(want: KernelState, have: KernelState) -> Iterator[DeleteFilterTable]:
    """Yield what comes after all else: the packet filter that nobody wants any more."""
    if want.netfilter is None and have.netfilter is not None:
        yield DeleteFilterTable()


def in_words(step: Step) -> tuple[str, str, str]:
    """Describe a step to a person: the verb, the object and the detail."""
    match step:
        case PutRoute(key, route, None):
            words = "add route", str(key), str(route)
        case PutRoute(key, route, replaced):
            words = "replace route", str(key), f"{route} (was: {replaced})"
        case DeleteRoute(key, route):
            words = "delete route", str(key), str(route)
        case PutTunnel(tunnel):
            detail = f"local {tunnel.local} mtu {tunnel.mtu} address {tunnel.address}"
            words = "set tunnel", tunnel.name, detail
        case DeleteTunnel(name):
            words = "delete tunnel", name, ""
        case PutSysctl(path, value):
            words = "set sysctl", path, value
        case PutPodLink(name, link):
            words = "set link", name, f"mtu {link.mtu}, and {link.inside} in {link.netns}"
        case PutFilterTable() | DeleteFilterTable() | PutGuard() | DeleteGuard():
            words = _guarding_in_words(step)
    return words


def _guarding_in_words(step: PutFilterTable | DeleteFilterTable | PutGuard | DeleteGuard) -> tuple[str, str, str]:
    match step:
        case PutFilterTable(table, before, _):
            return "set nftables", f"table {filter_table.NAME}", filter_table.difference(table, before)
        case DeleteFilterTable():
            return "delete nftables", f"table {filter_table.NAME}", ""
        case PutGuard(wanted, before):
            return "set guard", "of pods' interfaces", guard.difference(wanted, before)
        case DeleteGuard():
            return "delete guard", "of pods' interfaces", ""


def kept(have: KernelState, done: Iterable[Step]) -> KernelState:
    """Return what is there after these steps; pods' interfaces and routes have their own mirrors."""
    sysctls, tunnels = dict(have.sysctls), dict(have.tunnels)
    netfilter, programs = have.netfilter, have.guard
    for step in done:
        match step:
            case PutSysctl(path, value):
                sysctls[path] = value
            case PutTunnel(tunnel):
                tunnels[tunnel.name] = tunnel
            case DeleteTunnel(name):
                tunnels.pop(name, None)
            case PutFilterTable(table):
                netfilter = table
            case DeleteFilterTable():
                netfilter = None
            case PutGuard(wanted):
                programs = wanted
            case DeleteGuard():
                programs = None
    return KernelState(tunnels=tunnels, sysctls=sysctls, netfilter=netfilter, guard=programs)
