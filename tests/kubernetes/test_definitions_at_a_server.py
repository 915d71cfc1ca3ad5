"""Our CustomResourceDefinitions at a real API server: what it takes and refuses, and what kubectl shows."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml
from api_server import ApiServer, binary

from felix_py.kubernetes_resources import understand
from felix_py.model import Invalid

pytestmark = pytest.mark.kubernetes

MANIFESTS = Path(__file__).parent / "manifests"


def custom(kind: str, spec: Mapping[str, Any], name: str = "default") -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


def kubectl(server: ApiServer, *words: str) -> str:
    program = binary("kubectl")
    if program is None:
        pytest.skip("needs kubectl: tests/kubernetes/binaries.sh FOLDER kubectl")
    command = [program, "--kubeconfig", str(server.kubeconfig), f"--cache-dir={server.folder}/cache", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_calicos_manifests_apply_unchanged(server: ApiServer) -> None:
    path = MANIFESTS / "calico.yaml"
    answer = kubectl(server, "apply", "-f", str(path))
    documents = list(yaml.safe_load_all(path.read_text()))
    assert answer.count(" created") == len(documents)
    for document in documents:
        stored = server.request("GET", server.path_of(document))
        understand(document["kind"], stored)
        assert stored["spec"].items() >= document["spec"].items(), "nothing was dropped"


REFUSED = [
    ("IPPool", {"cidr": "10.65.0.1/16"}, "give a network without host bits"),
    ("IPPool", {"cidr": "10.65/16"}, "give a network without host bits"),
    ("IPPool", {"cidr": "169.254.0.0/16"}, "give a range of unicast addresses"),
    ("IPPool", {"cidr": "fd65::/48", "ipipMode": "Always"}, "IP in IP does not carry IPv6"),
    ("IPPool", {"cidr": "10.65.0.0/16", "ipipMode": "Always", "vxlanMode": "CrossSubnet"}, "give Never for one of"),
    ("IPPool", {"cidr": "10.65.0.0/28", "blockSize": 26}, "a block is larger than the pool"),
    ("IPPool", {"cidr": "fd65::/48", "blockSize": 64}, "of IPv6 from 116 to 128"),
    ("IPPool", {"cidr": "10.65.0.0/16", "ipipMode": "Sometimes"}, "Sometimes"),
    ("IPPool", {"cidr": "10.65.0.0/16", "assignmentMode": "Manual"}, "assignmentMode"),
    ("IPPool", {"cidr": "10.65.0.0/16", "awsSubnetID": "x"}, "awsSubnetID"),
    ("IPPool", {}, "cidr"),
    ("IPReservation", {"reservedCIDRs": ["10.65.0.7/33"]}, "give a network or an address"),
    ("IPAMConfiguration", {"ipCooldownSeconds": 1201}, "1200"),
    ("BlockAffinity", {"cidr": "10.65.1.0/26"}, "node"),
    ("BGPConfiguration", {"listenPort": 0}, "listenPort"),
    ("BGPConfiguration", {"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}, "serviceClusterIPs"),
    ("BGPConfiguration", {"nodeMeshPassword": "s3cret"}, "nodeMeshPassword"),
    ("BGPPeer", {"peerIP": "172.31.1.1"}, "give the asNumber of peerIP"),
    ("BGPPeer", {"asNumber": 64600}, "give peerIP, or peerSelector"),
    ("BGPPeer", {"peerIP": "172.31.1.1", "asNumber": 1, "node": "a1", "nodeSelector": "all()"}, "exclude each other"),
    ("BGPPeer", {"peerSelector": "all()", "asNumber": 64600}, "asNumber is not given together"),
    ("BGPPeer", {"peerIP": "172.31.1.1", "asNumber": 1, "nextHopMode": "Self", "keepOriginalNextHop": True}, "exclude"),
    ("BGPFilter", {"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]}, "cidr and matchOperator need each other"),
    ("BGPFilter", {"importV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}]}, "only action"),
    ("FelixConfiguration", {"vxlanVNI": 1 << 24}, "vxlanVNI"),
]


@pytest.mark.parametrize(("kind", "spec", "words"), REFUSED, ids=[f"{kind} {spec}" for kind, spec, _ in REFUSED])
def test_what_the_server_refuses_we_refuse(server: ApiServer, kind: str, spec: dict[str, Any], words: str) -> None:
    document = custom(kind, spec)
    with pytest.raises(HTTPError) as refused:
        server.apply(document, dry=True)
    assert words in refused.value.msg
    with pytest.raises(Invalid):
        understand(kind, document)


@pytest.mark.parametrize("kind", ["BGPConfiguration", "IPAMConfiguration", "FelixConfiguration"])
def test_there_is_one_of_some_kinds(server: ApiServer, kind: str) -> None:
    with pytest.raises(HTTPError, match=r"metadata\.name"):
        server.apply(custom(kind, {}, name="other"), dry=True)


def test_a_pool_cannot_move(server: ApiServer) -> None:
    server.apply(custom("IPPool", {"cidr": "10.65.0.0/16"}))
    with pytest.raises(HTTPError, match="a pool cannot move"):
        server.apply(custom("IPPool", {"cidr": "10.66.0.0/16"}))


def test_defaults_are_ours(server: ApiServer) -> None:
    server.apply(custom("IPPool", {"cidr": "10.65.0.0/16"}))
    stored = server.request("GET", "/apis/projectcalico.org/v3/ippools/default")
    assert understand("IPPool", stored) == understand("IPPool", custom("IPPool", {"cidr": "10.65.0.0/16"}))


def test_kubectl_shows_what_matters(server: ApiServer) -> None:
    server.apply(custom("IPPool", {"cidr": "10.65.0.0/16", "ipipMode": "CrossSubnet", "natOutgoing": True}))
    server.apply(custom("BGPPeer", {"peerIP": "172.31.1.1", "asNumber": 64600, "nodeSelector": "rack == 'a'"}, "tor"))
    header, row = kubectl(server, "get", "ippools").splitlines()
    assert header.split() == ["NAME", "CIDR", "IPIP", "VXLAN", "NAT", "DISABLED", "AGE"]
    assert row.split()[:5] == ["default", "10.65.0.0/16", "CrossSubnet", "Never", "true"]
    header, row = kubectl(server, "get", "bgppeers").splitlines()
    assert header.split() == ["NAME", "PEER", "PEERS", "AS", "NODE", "NODES", "AGE"]
    assert row.split()[:3] == ["tor", "172.31.1.1", "64600"]


def test_kubectl_explains_a_field(server: ApiServer) -> None:
    said = kubectl(server, "explain", "ippools.spec.ipipMode")
    assert "IP in IP between nodes; CrossSubnet leaves it out where two share a subnet." in " ".join(said.split())
