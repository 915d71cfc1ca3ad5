"""The files that a lab's machines read: felix.yaml, resources, bird.conf. Pure: a Topology in, text out."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from felix_py.lab.topology import LabNode, Router, Topology
from felix_py.model import IPAddress, IPPool, VxlanMode
from felix_py.resources import API_VERSION

Document = dict[str, Any]

NOT_IN_NAMES = str.maketrans(".:/", "---")
"""One for one, so that no two blocks of IPv6 have one name."""


def felix_yaml(topology: Topology, node: LabNode) -> str:
    """Return the settings of one node's agent."""
    return _yaml({"nodeName": str(node.name), **topology.agent})


def hosts(topology: Topology) -> str:
    """Return /etc/hosts of all that have a daemon: every machine by its name."""
    routers = ((address, router.name) for router in topology.routers for address in _lowest(router))
    machines = ((address, machine.name) for machine in topology.machines for address in machine.ends)
    lines = (f"{address} {name}" for address, name in (*routers, *machines))
    return "\n".join(["127.0.0.1 localhost", *lines, ""])


def _lowest(router: Router) -> Iterator[IPAddress]:
    """Yield a router's lowest address of each version of IP."""
    if router.addresses:
        yield min(router.addresses.values()).ip
    if router.addresses6:
        yield min(router.addresses6.values()).ip


def resources(topology: Topology) -> dict[str, str]:
    """Return the files of the cluster's datastore by name; every node reads the same."""
    return {
        "cluster.yaml": _stream([_bgp_configuration(topology), *map(_pool, topology.pools)]),
        "nodes.yaml": _stream([_node(node) for node in topology.nodes]),
        "blocks.yaml": _stream(list(_affinities(topology))),
        "peers.yaml": _stream(list(_peers(topology))),
    }


def _yaml(document: Document) -> str:
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False)


def _stream(documents: list[Document]) -> str:
    return "---\n".join(map(_yaml, documents))


def _resource(kind: str, name: str, spec: Mapping[str, Any]) -> Document:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def _bgp_configuration(topology: Topology) -> Document:
    spec = {"asNumber": topology.bgp.as_number, "nodeToNodeMeshEnabled": topology.bgp.node_to_node_mesh}
    return _resource("BGPConfiguration", "default", spec)


def _pool(pool: IPPool) -> Document:
    spec: Document = {"cidr": str(pool.cidr), "ipipMode": str(pool.ipip_mode), "blockSize": pool.block_size}
    if pool.vxlan_mode is not VxlanMode.NEVER:
        spec["vxlanMode"] = str(pool.vxlan_mode)
    if pool.disabled:
        spec["disabled"] = True
    return _resource("IPPool", pool.name, spec)


def _node(node: LabNode) -> Document:
    bgp: Document = {"ipv4Address": str(node.address)}
    if node.address6 is not None:
        bgp["ipv6Address"] = str(node.address6)
    if node.as_number is not None:
        bgp["asNumber"] = node.as_number
    return _resource("Node", node.name, {"bgp": bgp})


def _affinities(topology: Topology) -> Iterator[Document]:
    for node in topology.nodes:
        for block in node.blocks:
            # Calico names an affinity by node and block, with a hyphen for what a name may not hold.
            name = f"{node.name}-{str(block).translate(NOT_IN_NAMES)}"
            yield _resource("BlockAffinity", name, {"node": str(node.name), "cidr": str(block), "state": "confirmed"})


def neighbours(topology: Topology, router: Router) -> tuple[LabNode, ...]:
    """Return the nodes that a router holds sessions with: all those in its networks."""
    return tuple(node for node in topology.nodes if node.network in router.addresses)


def _peers(topology: Topology) -> Iterator[Document]:
    """One BGPPeer for each router, node and version of IP; and one for each route reflector, which all nodes share."""
    if not topology.speaks_bgp:
        return
    for router in topology.routers:
        for node in neighbours(topology, router):
            for far, near in sessions(router, node):
                spec = {"node": str(node.name), "peerIP": str(far), "asNumber": router.as_number}
                name = f"{router.name}-{node.name}" + ("" if near.version == 4 else "-ipv6")  # noqa: PLR2004
                yield _resource("BGPPeer", name, spec)
    for reflector in topology.reflectors:
        # Neither node nor nodeSelector: every node holds this session.
        everybody = {"peerIP": str(reflector.address.ip), "asNumber": topology.bgp.as_number}
        yield _resource("BGPPeer", reflector.name, everybody)


def sessions(router: Router, node: LabNode) -> Iterator[tuple[IPAddress, IPAddress]]:
    """Yield the addresses of each session between a router and a node: one for each version of IP that both have."""
    for far in router.ends(node.network):
        yield from ((far, near) for near in node.ends if near.version == far.version)


def bird_conf(topology: Topology, router: Router) -> str:
    """Return the configuration of a router's BIRD 2."""
    head = BIRD_HEAD.format(
        name=router.name,
        router_id=min(address.ip for address in router.addresses.values()),
        default=BIRD_DEFAULT if router.announce_default else "",
        accept=_accepted(topology, 4),
    )
    if router.addresses6:
        default = BIRD_DEFAULT6 if router.announce_default else ""
        head += BIRD_HEAD6.format(default=default, accept=_accepted(topology, 6))
    every = (
        _bird_session(topology, router, node, *ends)
        for node in neighbours(topology, router)
        for ends in sessions(router, node)
    )
    others = [*topology.between_routers(router)]
    if others:
        head += BIRD_FABRIC
    beyond = (_bird_router(router, other, network) for other, network in others)
    return head + BIRD_LOOPS + "".join((*every, *beyond))


def _accepted(topology: Topology, version: int) -> str:
    """Return the condition for what a router takes from nodes: what lies in the pools."""
    pools = (f"{pool.cidr}+" for pool in topology.pools if not pool.disabled and pool.cidr.version == version)
    listed = ", ".join(pools)
    return f"net ~ [ {listed} ]" if listed else "false"


BIRD_HEAD = """\
# Router {name}, written by felix-lab.
log stderr all;
router id {router_id};
graceful restart wait 30;          # seconds to keep the kernel's routes after a restart, until the peers spoke

protocol device {{ }}

protocol kernel {{
  graceful restart on;
  ipv4 {{ import none; export where source = RTS_BGP; }};
}}
{default}
template bgp felix_node {{
  graceful restart on;             # RFC 4724: a node's agent may restart without losing its routes here
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 5;
  ipv4 {{ import where {accept}; next hop self; }};
}}
"""

BIRD_HEAD6 = """
protocol kernel kernel6 {{
  graceful restart on;
  ipv6 {{ import none; export where source = RTS_BGP; }};
}}
{default}
template bgp felix_node6 {{
  graceful restart on;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 5;
  ipv6 {{ import where {accept}; next hop self; }};
}}
"""

BIRD_FABRIC = """
protocol direct {
  ipv4;                            # the networks of this router, for the routers beyond
}
"""

BIRD_ROUTER = """
protocol bgp 'router-{name}' {{
  local {local} as {local_as};
  neighbor {address} as {remote_as};
  graceful restart on;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 5;
  ipv4 {{ import all; export where source = RTS_DEVICE || source = RTS_BGP; }};
}}
"""

BIRD_LOOPS = """
# What came from an AS is not told to that AS: it would refuse it as a loop (RFC 4271, 9.1.2).
"""

BIRD_DEFAULT = """
protocol static default_route {
  ipv4;
  route 0.0.0.0/0 unreachable;     # told to the nodes only; this router's own table stays as it is
}
"""

BIRD_DEFAULT6 = """
protocol static default_route6 {
  ipv6;
  route ::/0 unreachable;
}
"""

BIRD_SESSION = """
protocol bgp 'node-{name}' from {template} {{
  local {local} as {local_as};
  neighbor {address} as {remote_as};
  {channel} {{ export where {export}; }};
}}
"""


def _bird_session(topology: Topology, router: Router, node: LabNode, far: IPAddress, near: IPAddress) -> str:
    remote_as = node.as_number or topology.bgp.as_number
    six = near.version == 6  # noqa: PLR2004 - IP versions
    # Where the network goes on beyond this router: nodes are told of pods only, and have a default route for the rest.
    pods = f" && {_accepted(topology, near.version)}" if any(topology.between_routers(router)) else ""
    learned = f"(source = RTS_BGP{pods} && ! (bgp_path ~ [= * {remote_as} * =]))"
    default = "default_route6" if six else "default_route"
    return BIRD_SESSION.format(
        name=f"{node.name}-ipv6" if six else node.name,
        template="felix_node6" if six else "felix_node",
        local=far,
        local_as=router.as_number,
        address=near,
        remote_as=remote_as,
        channel="ipv6" if six else "ipv4",
        export=f'{learned} || proto = "{default}"' if router.announce_default else learned,
    )


def _bird_router(router: Router, other: Router, network: str) -> str:
    return BIRD_ROUTER.format(
        name=other.name,
        local=router.addresses[network].ip,
        local_as=router.as_number,
        address=other.addresses[network].ip,
        remote_as=other.as_number,
    )
