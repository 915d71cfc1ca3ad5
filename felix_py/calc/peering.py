"""The sessions of a node: a table of who may ask for one, and what each session is like.

The order is Calico's: peers of all nodes, then peers of this node, then nodes that name this one as their peer (the
mirror of what was asked for there), then the mesh. The first that asks for an address has it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from bgp import peering
from bgp.peering import Kind, PeerSettings
from felix_py.model import BGPConfiguration, BGPPeer, IPAddress, Node
from felix_py.state import ClusterState

ALL = "all nodes"


@dataclass(frozen=True)
class View:
    """The cluster as this node sees it."""

    cluster: ClusterState
    own: Node

    @cached_property
    def defaults(self) -> BGPConfiguration:
        """The cluster's BGP settings."""
        return self.cluster.bgp()

    @cached_property
    def others(self) -> tuple[Node, ...]:
        """The other nodes, by name; one that has an address of ours is a mistake, and no other node."""
        return tuple(
            node
            for node in self.cluster.of(Node)
            if node.name != self.own.name and not set(node.addresses) & set(self.own.addresses)
        )

    @cached_property
    def at(self) -> Mapping[IPAddress, Node]:
        """The other nodes by address."""
        return {address: node for node in self.others for address in node.addresses}

    def asn(self, node: Node) -> int:
        """Return the AS of a node."""
        return node.as_number or self.defaults.as_number

    @cached_property
    def naming_us(self) -> tuple[BGPPeer, ...]:
        """What names this node as a peer, in the order in which its holders look at it (`ASKING`)."""
        naming = [peer for peer in self.cluster.of(BGPPeer) if _names(peer, self.own)]
        return tuple(sorted(naming, key=lambda peer: not _is_global(peer)))

    def asn_towards_us(self, node: Node, address: IPAddress) -> int:
        """Return the AS that a node says it is of in its OPEN to us: its own, or the `localASNumber` that it uses here.

        Args:
            node: the other one.
            address: its end of the session.
        """
        source = self.source(address)
        first = next((each for each in self.naming_us if _is_near(each, node) and each.peer_ip in (None, source)), None)
        return (first.local_as_number if first else None) or self.asn(node)

    def source(self, address: IPAddress) -> IPAddress | None:
        """Return our own end of a session with an address; None where we have none of its version."""
        return next((own for own in self.own.addresses if own.version == address.version), None)

    def waits(self, address: IPAddress) -> bool:
        """Say whether we leave it to a node to dial; see `peering.waits`."""
        source = self.source(address)
        return source is not None and peering.waits(source, address)


def wanted(cluster: ClusterState, own: Node) -> tuple[PeerSettings, ...]:
    """Return every session that this node should hold, by address, each with the reason why."""
    view, found = View(cluster, own), dict[IPAddress, PeerSettings]()
    for ask in ASKING:
        for peer in ask(view):
            if peer.address in own.addresses:
                continue
            first = found.setdefault(peer.address, peer)
            if first is not peer and peer.kind in ("global", "node"):
                found[peer.address] = replace(first, why=f"{first.why}; gives way to it: {peer.why}")
    reflected = (_as_reflector(view, peer) for peer in found.values())
    return peering.in_order(reflected)


# --- who may ask


def _mesh(view: View) -> Iterator[PeerSettings]:
    """Yield a session with every other node; route reflectors take no part, nor has anybody one with them."""
    defaults = view.defaults
    if not defaults.node_to_node_mesh or view.own.cluster_id is not None:
        return
    password, problem = _password(view, defaults.mesh_password, f"BGPConfiguration {defaults.name}")
    for node in view.others:
        if node.cluster_id is not None:
            continue
        for address in node.addresses:
            if view.source(address) is not None:
                yield PeerSettings(
                    address=address,
                    asn=view.asn_towards_us(node, address),
                    name=node.name,
                    kind="mesh",
                    hold_time=defaults.mesh_hold_time,
                    port=defaults.listen_port,
                    passive=view.waits(address),
                    password=password,
                    restart_time=defaults.mesh_restart_time,
                    why=f"node-to-node mesh, with node {node.name}",
                    obstacle=problem,
                )


def _of_all(view: View) -> Iterator[PeerSettings]:
    """Yield the sessions that every node holds."""
    for peer in view.cluster.of(BGPPeer):
        if _is_global(peer):
            yield from _forward(view, peer, "global")


def _of_this_node(view: View) -> Iterator[PeerSettings]:
    """Yield the sessions that somebody asked of this node, by its name or by its labels."""
    for peer in view.cluster.of(BGPPeer):
        if not _is_global(peer) and _is_near(peer, view.own):
            yield from _forward(view, peer, "node")


def _reverse(view: View) -> Iterator[PeerSettings]:
    """Yield our half of the sessions that other nodes hold because a resource names this node as their peer."""
    for peer in view.cluster.of(BGPPeer):
        if not peer.reverse or not _is_far(view, peer):
            continue
        versions = {4, 6} if peer.peer_ip is None else {peer.peer_ip.version}
        for node in view.others:
            if not _is_near(peer, node):
                continue
            for address in node.addresses:
                if address.version in versions and view.source(address) is not None:
                    asn = view.asn_towards_us(node, address)
                    why = (
                        f"BGPPeer {peer.name} of {_near(peer)} names this node, so node {node.name} dials or is dialled"
                    )
                    mirror = replace(peer, local_as_number=None)
                    yield _session(view, mirror, _End(address, asn, node.name, node), "reverse", why)


ASKING: tuple[Callable[[View], Iterator[PeerSettings]], ...] = (_of_all, _of_this_node, _reverse, _mesh)
"""Read from top to bottom; the first that asks for an address has it."""


# --- the two ends of a BGPPeer


@dataclass(frozen=True, slots=True)
class _End:
    """A far end of a session.

    Attributes:
        node: the node that it is; None where it is none.
    """

    address: IPAddress
    asn: int
    name: str
    node: Node | None


def _is_global(peer: BGPPeer) -> bool:
    return peer.node is None and peer.node_selector is None


def _is_near(peer: BGPPeer, node: Node) -> bool:
    """Say whether a node holds the sessions of a BGPPeer."""
    if peer.node_selector is not None:
        return peer.node_selector.matches(node.labels)
    return peer.node in (None, node.name)


def _near(peer: BGPPeer) -> str:
    """Return in words who holds the sessions of a BGPPeer."""
    if peer.node_selector is not None:
        return f"nodes with {peer.node_selector}"
    return f"node {peer.node}" if peer.node is not None else ALL


def _names(peer: BGPPeer, node: Node) -> bool:
    """Say whether a BGPPeer names a node as the far end, right or wrong in its AS."""
    if peer.peer_selector is not None:
        return peer.peer_selector.matches(node.labels)
    return peer.peer_ip in node.addresses


def _is_far(view: View, peer: BGPPeer) -> bool:
    """Say whether this node is somebody with whom a BGPPeer asks for sessions."""
    return _names(peer, view.own) and (
        peer.peer_selector is not None
        or (peer.as_number == view.asn(view.own) and peer.port in (None, view.defaults.listen_port))
    )


def _far_ends(view: View, peer: BGPPeer) -> Iterator[_End]:
    """Yield with whom a BGPPeer asks for sessions."""
    if peer.peer_ip is not None and peer.as_number is not None:
        node = view.at.get(peer.peer_ip)
        # Something else may listen on another port of a node.
        if node is not None and peer.port not in (None, view.defaults.listen_port):
            node = None
        yield _End(peer.peer_ip, peer.as_number, node.name if node else peer.name, node)
    if peer.peer_selector is not None:
        for node in view.others:
            if peer.peer_selector.matches(node.labels):
                for address in node.addresses:
                    if view.source(address) is not None:
                        yield _End(address, view.asn_towards_us(node, address), node.name, node)


def _forward(view: View, peer: BGPPeer, kind: Kind) -> Iterator[PeerSettings]:
    for end in _far_ends(view, peer):
        by = f", whose labels match {peer.peer_selector}" if peer.peer_selector is not None else ""
        yield _session(view, peer, end, kind, f"BGPPeer {peer.name} of {_near(peer)}{by}")


# --- one session


def _session(view: View, peer: BGPPeer, end: _End, kind: Kind, why: str) -> PeerSettings:
    password, problem = _password(view, peer.password, f"BGPPeer {peer.name}")
    return PeerSettings(
        address=end.address,
        asn=end.asn,
        name=end.name,
        kind=kind,
        hold_time=peer.hold_time or (3 * peer.keepalive if peer.keepalive else peering.HOLD_TIME),
        port=peer.port or (view.defaults.listen_port if end.node else peering.PORT),
        # A peer that is a node holds the session too: then one side only dials.
        passive=end.node is not None and view.waits(end.address),
        local_asn=peer.local_as_number,
        own_as_allowed=peer.own_as_allowed,
        any_source=peer.any_source,
        next_hop_mode=peer.next_hop_mode,
        ttl_hops=peer.ttl_hops,
        password=password,
        keepalive=peer.keepalive,
        restart_time=peer.restart_time,
        prefix_limit=peer.prefix_limit,
        filters=peer.filters,
        families=peer.families,
        why=why,
        obstacle=problem or _no_source(view, peer.name, end.address),
    )


def _no_source(view: View, name: str, address: IPAddress) -> str | None:
    if view.source(address) is not None:
        return None
    missing = {4: "ipv4Address", 6: "ipv6Address"}[address.version]
    return (
        f"BGPPeer {name} is IPv{address.version}, and this node has no such address; "
        f"give Node {view.own.name} spec.bgp.{missing}"
    )


def _password(view: View, name: str | None, whose: str) -> tuple[str | None, str | None]:
    """Return a session's password, and why it cannot be had; a session that should have one is never held without."""
    if name is None:
        return None, None
    secret = view.cluster.secret(name)
    if secret is None:
        return None, f"{whose} has a password, {name}, that has not been read yet"
    if secret.value is None:
        return None, f"{whose} has a password that cannot be used: {secret.problem}"
    return secret.value, None


def _as_reflector(view: View, peer: PeerSettings) -> PeerSettings:
    """Make a peer our client if we are a route reflector and it is none of our own cluster (RFC 4456 section 2)."""
    cluster_id = view.own.cluster_id
    if cluster_id is None or peer.external(view.asn(view.own)):
        return peer
    node = view.at.get(peer.address)
    if node is not None and node.cluster_id == cluster_id:
        return replace(peer, why=f"{peer.why}; a route reflector of our own cluster {cluster_id}, so no client")
    return replace(peer, kind="rr-client", client=True, why=f"{peer.why}; our client in cluster {cluster_id}")
