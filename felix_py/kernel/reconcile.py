"""From what is and what should be to the steps between them; pure, so that it can be argued about with literals."""

from collections.abc import Iterable, Iterator

from felix_py.kernel import ownership
from felix_py.kernel.objects import (
    DeleteRoute,
    DeleteTunnel,
    KernelState,
    Plan,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Report,
    RouteKey,
    Step,
)


def plan(want: KernelState, have: KernelState) -> Plan:
    """Return the steps that turn `have` into `want`, additions before deletions.

    Args:
        want: the desired state.
        have: what was read back; only what is ours, and other people's routes on wanted keys as `occupants`.
    """
    return (
        *(PutSysctl(path, value) for path, value in want.sysctls.items() if have.sysctls.get(path) != value),
        *(PutTunnel(tunnel) for name, tunnel in want.tunnels.items() if have.tunnels.get(name) != tunnel),
        *_routes_to_put(want, have),
        *_routes_to_delete(want, have),
        *(DeleteTunnel(name) for name in have.tunnels if name not in want.tunnels),
    )


def _routes_to_put(want: KernelState, have: KernelState) -> Iterator[PutRoute]:
    for key, route in want.routes.items():
        actual = have.routes.get(key)
        if actual == route:
            continue
        occupant = have.occupants.get(key)
        if occupant is not None and ownership.standing(occupant) is ownership.Standing.LEAVE:
            continue
        yield PutRoute(key, route, replaces=actual or occupant)


def _routes_to_delete(want: KernelState, have: KernelState) -> Iterator[DeleteRoute]:
    for key, route in have.routes.items():
        if key not in want.routes:
            yield DeleteRoute(key, route)


def conflicts(want: KernelState, have: KernelState) -> dict[RouteKey, str]:
    """Say for each wanted route that somebody else's stands in its place, and whose."""
    return {
        key: f"a route of protocol {ownership.protocol_name(occupant.protocol)} stands there ({occupant}); "
        f"remove it with `ip route del {key.dst} proto {ownership.protocol_name(occupant.protocol)}`"
        for key, occupant in have.occupants.items()
        if key in want.routes and ownership.standing(occupant) is ownership.Standing.LEAVE
    }


def merged(reports: Iterable[Report]) -> Report:
    """Add up the reports of several batches."""
    done: list[Step] = []
    failed: list[tuple[Step, str]] = []
    for report in reports:
        done.extend(report.done)
        failed.extend(report.failed)
    return Report(tuple(done), tuple(failed))


def in_words(step: Step) -> tuple[str, str, str]:
    """Describe a step to a person: the verb, the object and the detail."""
    match step:
        case PutRoute(key, route, None):
            return "add route", str(key), str(route)
        case PutRoute(key, route, replaced):
            return "replace route", str(key), f"{route} (was: {replaced})"
        case DeleteRoute(key, route):
            return "delete route", str(key), str(route)
        case PutTunnel(tunnel):
            return (
                "set tunnel",
                tunnel.name,
                f"local {tunnel.local} mtu {tunnel.mtu} address {tunnel.address}",
            )
        case DeleteTunnel(name):
            return "delete tunnel", name, ""
        case PutSysctl(path, value):
            return "set sysctl", path, value
