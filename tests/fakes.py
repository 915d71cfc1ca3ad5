"""A kernel in a dict that obeys the real one's rules: tests/netns/test_kernel_contract.py holds both to one suite."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from felix_py.kernel import ownership
from felix_py.kernel.objects import (
    DeleteRoute,
    DeleteTunnel,
    KernelState,
    Link,
    Plan,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Report,
    Route,
    RouteKey,
    RouteType,
    Step,
)
from ipip.tunnel import Tunnel


@dataclass
class FakeKernel:
    """What the loop needs of a kernel; `writes` counts the steps that were carried out."""

    interfaces: dict[str, Link] = field(default_factory=dict)
    routes: dict[RouteKey, Route] = field(default_factory=dict)
    tunnels: dict[str, Tunnel] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    writes: list[Step] = field(default_factory=list)

    def links(self) -> dict[str, Link]:
        return dict(self.interfaces)

    def table(self, links: Mapping[str, Link]) -> dict[RouteKey, Route]:
        assert links == self.interfaces
        return dict(self.routes)

    def read(self, want: KernelState, table: Mapping[RouteKey, Route]) -> KernelState:
        ours = {key: route for key, route in table.items() if ownership.is_ours(route)}
        occupants = {key: route for key, route in table.items() if key in want.routes and key not in ours}
        sysctls = {path: self.sysctls.get(path, "0") for path in want.sysctls}
        return KernelState(ours, dict(self.tunnels), sysctls, occupants)

    def carry_out(self, plan: Plan) -> Report:
        done: list[Step] = []
        failed: list[tuple[Step, str]] = []
        for step in plan:
            why = self._refusal(step)
            if why is None:
                self._do(step)
                done.append(step)
            else:
                failed.append((step, why))
        self.writes += done
        return Report(tuple(done), tuple(failed))

    def _refusal(self, step: Step) -> str | None:
        if not isinstance(step, PutRoute) or step.route.type is not RouteType.UNICAST:
            return None
        device = step.route.device or ""
        if device in self.tunnels or device == "lo":
            return None
        if device not in self.interfaces:
            return f"{device} does not exist"
        return None if self.interfaces[device].up else f"{device} is down"

    def _do(self, step: Step) -> None:
        match step:
            case PutRoute(key, route, _):
                self.routes[key] = route
            case DeleteRoute(key, route):
                if self.routes.get(key) == route:
                    del self.routes[key]
            case PutTunnel(tunnel):
                self.tunnels[tunnel.name] = tunnel
            case DeleteTunnel(name):
                self.tunnels.pop(name, None)
            case PutSysctl(path, value):
                self.sysctls[path] = value
