"""A machine's kernel as a trace looks at it, out of a few literals."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from builders import link, links

from felix_py.calc.longest_match import LongestMatch
from felix_py.kernel.base_chains import Chain
from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.flow import Flow
from felix_py.kernel.guard import Guard
from felix_py.kernel.lookup_codec import Found
from felix_py.kernel.objects import RouteType
from felix_py.kernel.rule_codec import Rule
from felix_py.kernel.wire import Refusal
from felix_py.model import IPAddress, IPNetwork

NODE = links(link("eth0", "172.31.1.11/24"), link("tunl0", "10.65.0.0/32", mtu=1480), link("cali1", mtu=1480))

FILTER = FilterTable(
    "table inet felix {\n\tchain from-pod {\n\t}\n\n\tchain encapsulated {\n\t}\n}\n",
    {
        "pods": frozenset({'"cali1"'}),
        "pod-addresses": frozenset({'"cali1" . 10.65.0.1'}),
        "nodes": frozenset({"172.31.2.12"}),
        "external-nodes": frozenset({"192.0.2.0/24"}),
    },
)


def found(
    prefix: str,
    device: str | None = None,
    via: str | None = None,
    kind: RouteType = RouteType.UNICAST,
    mtu: int = 0,
    table: int = 254,
) -> Found:
    gateway = ip_address(via) if via else None
    return Found(ip_network(prefix), kind, 80, device, gateway, None, mtu or None, table=table)


class FakeSight:
    """A node with a pod, a remote block behind the tunnel, and a default route."""

    def __init__(self) -> None:
        self.links = dict(NODE)
        self.table: FilterTable | None = FILTER
        self.guard: Guard | None = None
        self.chains: tuple[Chain, ...] = ()
        self.parameters: dict[str, str] = {"net/ipv4/conf/eth0/forwarding": "1", "net/ipv4/conf/cali1/forwarding": "1"}
        self.neighbours: dict[str, str] = {}
        self.forwarded: dict[str, IPAddress] = {}
        self.refused: dict[tuple[str, str | None], Refusal] = {}
        self.blackholes: tuple[str, ...] = ("10.65.0.0/26",)
        self.routes = [
            found("10.65.0.1/32", "cali1"),
            found("10.65.3.0/26", "tunl0", "172.31.2.12"),
            found("172.31.1.0/24", "eth0"),
            found("172.31.2.0/24", "eth0", "172.31.1.1"),
            found("172.31.1.11/32", kind=RouteType.LOCAL),
        ]
        self.policy: tuple[Rule, ...] = ()
        self.diverted: dict[Flow | None, Found | Refusal] = {}
        self.asked: list[Flow | None] = []

    def lookup(
        self, destination: IPAddress, source: IPAddress | None, device: str | None, flow: Flow | None = None
    ) -> Found | Refusal:
        self.asked.append(flow)
        if flow in self.diverted:
            return self.diverted[flow]
        refused = self.refused.get((str(destination), device)) if source is not None else None
        blackhole = any(destination in ip_network(each) for each in self.blackholes)
        matched = LongestMatch((each.prefix, each) for each in self.routes).of(destination)
        if refused or matched is None:
            return refused or (Refusal(22, "Invalid argument") if blackhole else Refusal(101, "Network is unreachable"))
        return matched

    def rules(self, _version: int) -> Iterable[Rule]:
        return self.policy

    def rejecting(self, kind: RouteType, version: int) -> Iterable[IPNetwork]:
        wanted = kind is RouteType.BLACKHOLE and version == 4
        return [ip_network(each) for each in self.blackholes] if wanted else []

    def neighbour(self, address: IPAddress, device: str) -> str:
        return self.neighbours.get(str(address), "reachable" if device != "lo" else "noarp")

    def forwarding(self, address: IPAddress, _device: str) -> IPAddress | None:
        return self.forwarded.get(str(address))

    def parameter(self, path: str) -> str | None:
        return self.parameters.get(path)
