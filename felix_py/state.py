"""What the agent knows of the cluster, as one frozen value, and the news that change it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from felix_py.model import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    BlockAffinity,
    FelixConfiguration,
    IPAMConfiguration,
    IPPool,
    IPReservation,
    Key,
    Namespace,
    Node,
    NodeName,
    Resource,
    Secret,
    WorkloadEndpoint,
)

VXLAN_VNI, VXLAN_PORT = 4096, 4789
"""Calico's network identifier, and the UDP port that IANA has assigned (RFC 7348 section 5)."""

Kind = TypeVar(
    "Kind",
    Node,
    IPPool,
    BlockAffinity,
    WorkloadEndpoint,
    BGPConfiguration,
    BGPPeer,
    BGPFilter,
    FelixConfiguration,
    IPReservation,
    Namespace,
    Secret,
)


@dataclass(frozen=True, slots=True)
class Present:
    """The resource exists and looks like this."""

    key: Key
    value: Resource


@dataclass(frozen=True, slots=True)
class Absent:
    """The resource does not exist, or is invalid, which is the same to us."""

    key: Key


@dataclass(frozen=True, slots=True)
class InSync:
    """Everything that existed at the start has been told; from here on absence means something."""


Event: TypeAlias = Present | Absent | InSync


def _type_of(value: Resource | None) -> type[Resource] | None:
    return None if value is None else type(value)


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All resources by key. Order of arrival leaves no trace: equal contents are equal states."""

    resources: Mapping[Key, Resource] = field(default_factory=dict)
    in_sync: bool = False
    _found: dict[type[Resource], tuple[Any, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `of` has found before, in this state or in one before it with the same resources of that kind."""

    def after_all(self, events: Iterable[Event]) -> "ClusterState":
        """Return the state after these events; the old state stays as it was."""
        resources, in_sync, changed = dict(self.resources), self.in_sync, set[type[Resource] | None]()
        for event in events:
            match event:
                case Present(key, value):
                    changed |= {type(value), _type_of(resources.get(key))}
                    resources[key] = value
                case Absent(key):
                    changed.add(_type_of(resources.pop(key, None)))
                case InSync():
                    in_sync = True
        after = ClusterState(resources, in_sync)
        # Pods come and go in hundreds; what is asked for each of them, as the pools, is found once.
        after._found.update((kind, found) for kind, found in tuple(self._found.items()) if kind not in changed)
        return after

    def of(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """Return all resources of one kind, by name; the same object until one of them changes."""
        found = self._found.get(kind)
        if found is None:
            of_kind = [value for value in self.resources.values() if isinstance(value, kind)]
            found = self._found[kind] = tuple(sorted(of_kind, key=lambda value: value.name))
        return found

    def node(self, name: NodeName) -> Node | None:
        """Return the node of that name, if it is known."""
        found = self.resources.get(Key("Node", name))
        return found if isinstance(found, Node) else None

    def bgp(self) -> BGPConfiguration:
        """Return the cluster's BGP settings; the defaults where nobody wrote any."""
        found = self.resources.get(Key("BGPConfiguration", "default"))
        return found if isinstance(found, BGPConfiguration) else BGPConfiguration()

    def ipam(self) -> IPAMConfiguration:
        """Return how addresses are given out; the defaults where nobody wrote anything."""
        found = self.resources.get(Key("IPAMConfiguration", "default"))
        return found if isinstance(found, IPAMConfiguration) else IPAMConfiguration()

    def filter(self, name: str) -> BGPFilter | None:
        """Return the BGP filter of that name, if it is known."""
        found = self.resources.get(Key("BGPFilter", name))
        return found if isinstance(found, BGPFilter) else None

    def secret(self, name: str) -> Secret | None:
        """Return what was found where a resource says that a password is; None while nobody has looked."""
        found = self.resources.get(Key("Secret", name))
        return found if isinstance(found, Secret) else None

    def felix(self, node: NodeName) -> FelixConfiguration:
        """Return how this node programs routes: its own settings, then the cluster's, then the defaults."""
        found = (self.resources.get(Key("FelixConfiguration", name)) for name in (f"node.{node}", "default"))
        said = [each for each in found if isinstance(each, FelixConfiguration)]

        def first(*values: bool | None, otherwise: bool) -> bool:
            return next((value for value in values if value is not None), otherwise)

        return FelixConfiguration(
            f"node.{node}",
            next((each.device_route_source for each in said if each.device_route_source), None),
            first(*(each.remove_external_routes for each in said), otherwise=True),
            first(*(each.route_sync_disabled for each in said), otherwise=False),
            next((each.device_route_source6 for each in said if each.device_route_source6), None),
            next((each.external_nodes for each in said if each.external_nodes is not None), ()),
            next((each.ipip_mtu for each in said if each.ipip_mtu is not None), None),
            next((each.mtu_pattern for each in said if each.mtu_pattern is not None), None),
            next((each.vxlan_vni for each in said if each.vxlan_vni is not None), VXLAN_VNI),
            next((each.vxlan_port for each in said if each.vxlan_port is not None), VXLAN_PORT),
            next((each.vxlan_mtu for each in said if each.vxlan_mtu is not None), None),
            next((each.vxlan_mtu6 for each in said if each.vxlan_mtu6 is not None), None),
            first(*(each.program_cluster_routes for each in said), otherwise=False),
        )
