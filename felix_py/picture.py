"""What one turn of the loop saw, wanted and did: the value that felixctl prints and the log describes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from felix_py.calc.desired import Desired
from felix_py.kernel.objects import (
    DeleteRoute,
    DeleteTunnel,
    KernelState,
    Link,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Report,
    Route,
    RouteKey,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """The last turn.

    Attributes:
        actual: ours in the kernel after the turn.
        table: the whole main table before it, for `felixctl routes --kernel`.
        refused: by route, the kernel's reason.
        problems: steps that were refused, one sentence each.
    """

    desired: Desired = field(default_factory=Desired)
    actual: KernelState = field(default_factory=KernelState)
    table: Mapping[RouteKey, Route] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    refused: Mapping[RouteKey, str] = field(default_factory=dict)
    conflicts: Mapping[RouteKey, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def after(have: KernelState, report: Report) -> KernelState:
    """Return the state that `have` became by the steps that were done."""
    routes, tunnels, sysctls = dict(have.routes), dict(have.tunnels), dict(have.sysctls)
    for step in report.done:
        match step:
            case PutRoute(key, route, _):
                routes[key] = route
            case DeleteRoute(key, _):
                routes.pop(key, None)
            case PutTunnel(tunnel):
                tunnels[tunnel.name] = tunnel
            case DeleteTunnel(name):
                tunnels.pop(name, None)
            case PutSysctl(path, value):
                sysctls[path] = value
    return KernelState(routes, tunnels, sysctls, have.occupants)


def refused_routes(report: Report) -> dict[RouteKey, str]:
    """Return the kernel's reason for each route that it did not take."""
    return {step.key: why for step, why in report.failed if isinstance(step, PutRoute | DeleteRoute)}


def sentences(report: Report) -> tuple[str, ...]:
    """Say in one sentence for each refused step what was refused and why."""
    return tuple(f"{_object(step)}: {why}" for step, why in report.failed)


def _object(step: PutRoute | DeleteRoute | PutTunnel | DeleteTunnel | PutSysctl) -> str:
    match step:
        case PutRoute(key, _, _) | DeleteRoute(key, _):
            return f"route {key}"
        case PutTunnel(tunnel):
            return f"tunnel {tunnel.name}"
        case DeleteTunnel(name):
            return f"tunnel {name}"
        case PutSysctl(path, _):
            return f"sysctl {path}"
