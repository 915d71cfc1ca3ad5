"""The checklist of the CNI specification for all but ADD, one test an item, called by its number."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cni_agent import AgentHost, empty, is_clean, prepare
from cni_lab import SHIM, Host, command, host, in_pod, until

from felix_py.claims import block_key
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ipam import Block

pytestmark = pytest.mark.netns

WEB = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentHost]:
    with host(tmp_path_factory.mktemp("node"), kind=AgentHost, before=prepare) as made:
        yield made


@pytest.fixture
def node(shared: AgentHost) -> Iterator[AgentHost]:
    """One agent for all tests; each leaves it as it was."""
    yield shared
    empty(shared)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[AgentHost]:
    """An agent of the test's own, to be killed."""
    with host(tmp_path, kind=AgentHost, before=prepare) as made:
        yield made


def added(node: Host, container: str = "c1", **more: Any) -> tuple[str, dict[str, Any]]:
    """Add a pod; return its namespace, and what CHECK is given."""
    pod = node.pod()
    answer = node.cni("ADD", container, pod, **more)
    assert answer.status == 0, answer.text
    return pod, {"prevResult": answer.document}


# --- DEL


def test_d1_del_may_be_repeated(node: AgentHost) -> None:
    pod, result = added(node)
    for config in (result, {}, {}):
        answer = node.cni("DEL", "c1", pod, config=config)
        assert (answer.status, answer.text) == (0, "")
    until(lambda: is_clean(node), "nothing is left")


def test_d2_del_without_the_namespace(node: AgentHost) -> None:
    added(node)
    assert node.cni("DEL", "c1", "/run/netns/none-such").status == 0
    until(lambda: is_clean(node), "nothing is left")


def test_d3_del_with_an_empty_namespace(node: AgentHost) -> None:
    added(node)
    assert node.cni("DEL", "c1", "").status == 0
    until(lambda: is_clean(node), "nothing is left")


def test_d4_del_of_what_was_never_added(node: AgentHost) -> None:
    answer = node.cni("DEL", "c9", node.pod())
    assert (answer.status, answer.text) == (0, "")


def test_d5_del_without_prev_result(node: AgentHost) -> None:
    pod, _ = added(node)
    assert node.cni("DEL", "c1", pod).status == 0
    until(lambda: is_clean(node), "nothing is left")


def test_d6_del_when_the_interface_is_gone(node: AgentHost) -> None:
    pod, result = added(node)
    in_pod(pod, "ip", "link", "del", "eth0")
    assert node.cni("DEL", "c1", pod, config=result).status == 0
    until(lambda: is_clean(node), "nothing is left")


def test_d7_del_gives_the_address_back_when_the_namespace_is_gone(node: AgentHost) -> None:
    pod, _ = added(node)
    command("ip", "netns", "del", pod)
    until(lambda: node.veths() == set(), "the veth dies with its namespace")
    assert node.held() != set()
    assert node.cni("DEL", "c1", pod).status == 0
    assert node.held() == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_d8_del_while_the_agent_is_down_is_done_when_it_starts(alone: AgentHost, number: int) -> None:
    pod, _ = added(alone, arguments=WEB)
    added(alone, "c2")
    alone.stop(number)
    for _ in range(2):
        answer = alone.cni("DEL", "c1", pod, arguments=WEB)
        assert (answer.status, answer.text) == (0, "")
    assert "does this DEL when it starts" in answer.stderr
    notes = alone.folder / "cni-deletions"
    assert [file.name for file in notes.iterdir()] == ["c1@eth0"]
    held = alone.held()
    alone.start()
    assert len(held) == 2
    assert len(alone.held()) == 1
    until(lambda: len(alone.veths()) == 1, "the interface is gone")
    assert list(notes.iterdir()) == []


def test_d8_del_of_an_agent_that_comes_back_at_that_moment(alone: AgentHost) -> None:
    """Of calls around a start each is done, by note or by the agent itself; none is lost between the two."""
    for number in range(12):
        added(alone, f"c{number}")
    alone.stop(signal.SIGKILL)
    calls = [alone.begin("DEL", f"c{number}") for number in range(4)]
    alone.start()
    calls += [alone.begin("DEL", f"c{number}") for number in range(4, 12)]
    assert {call.answer().status for call in calls} == {0}
    until(lambda: is_clean(alone), "nothing is left")
    assert list((alone.folder / "cni-deletions").iterdir()) == []


def test_d8_a_note_that_cannot_be_understood_harms_nobody(alone: AgentHost) -> None:
    added(alone)
    alone.stop()
    notes = alone.folder / "cni-deletions"
    notes.mkdir()
    for name, data in (("a@b", b"rubbish"), (".c@d.77", b""), ("c1@eth0", b"felix-cni 1\0CNI_COMMAND=DEL\0\0")):
        (notes / name).write_bytes(data)
    alone.start()
    assert list(notes.iterdir()) == []
    assert len(alone.held()) == 1
    assert node_says(alone, "does not begin with")


def node_says(node: AgentHost, words: str) -> bool:
    return any(words in str(event.get("reason", "")) for event in node.log)


def test_d9_del_after_the_configuration_changed(node: AgentHost) -> None:
    added(node)
    config = {"ipam": {"type": "host-local"}, "runtimeConfig": {"portMappings": [1]}, "mtu": "large"}
    assert node.cni("DEL", "c1", config=config, version="0.4.0").status == 0
    until(lambda: is_clean(node), "nothing is left")


# --- CHECK


def test_c1_check_right_after_add(node: AgentHost) -> None:
    pod, result = added(node)
    answer = node.cni("CHECK", "c1", pod, config=result)
    assert (answer.status, answer.text) == (0, "")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param("ip addr flush dev eth0", "eth0 lacks address", id="c2 address removed"),
        pytest.param("ip route del default", "no default route by 169.254.1.1", id="c3 route removed"),
        pytest.param("ip link set eth0 down", "no default route", id="c3 interface down"),
        pytest.param("ip link del eth0", "does not exist", id="c4 interface gone"),
    ],
)
def test_c2_c3_c4_check_finds_what_is_missing_in_the_pod(node: AgentHost, damage: str, sentence: str) -> None:
    pod, result = added(node)
    in_pod(pod, *damage.split())
    until(lambda: damage != "ip link del eth0" or not node.veths(), "both ends are gone")
    answer = node.cni("CHECK", "c1", pod, config=result)
    assert (answer.status, answer.code) == (1, 103)
    assert sentence in answer.message


def test_c4_check_finds_a_veth_that_is_down(node: AgentHost) -> None:
    pod, result = added(node)
    (veth,) = node.veths()
    node.ip("link", "set", veth, "down")
    answer = node.cni("CHECK", "c1", pod, config=result)
    assert (answer.status, answer.code) == (1, 103)
    assert f"{veth} is down" in answer.message


def test_c5_proxy_arp_that_somebody_switched_off_is_on_again_or_missing(node: AgentHost) -> None:
    pod, result = added(node)
    (veth,) = node.veths()
    path = f"/proc/sys/net/ipv4/conf/{veth}/proxy_arp"
    in_pod(node.name, "sh", "-c", f"echo 0 > {path}")
    answer = node.cni("CHECK", "c1", pod, config=result)
    assert answer.status == 0 or "proxy_arp is 0 and must be 1" in answer.message
    until(lambda: in_pod(node.name, "cat", path) == "1\n", "the agent has put it right")
    assert node.cni("CHECK", "c1", pod, config=result).status == 0


def test_c6_check_finds_a_lost_reservation(node: AgentHost) -> None:
    pod, result = added(node)
    swaps = FolderSwaps(node.folder / "resources")
    for found in swaps.listing("IPAMBlock")[0]:
        assert isinstance(found.value, Block)
        swaps.swap(block_key(found.value.cidr), Block(found.value.cidr, found.value.affinity), found.revision)
    answer = node.cni("CHECK", "c1", pod, config=result)
    assert (answer.status, answer.code) == (1, 103)
    assert "is not held for it" in answer.message
    assert node.cni("DEL", "c1").status == 0


def guards(node: AgentHost) -> str:
    """Return all that filters packets of pods on this host, without what is counted."""
    veths = sorted(node.veths())
    table = in_pod(node.name, "nft", "-s", "list", "table", "inet", "felix")
    return table + "".join(in_pod(node.name, "tc", "filter", "show", "dev", veth, "ingress") for veth in veths)


def test_c7_check_answers_when_the_packet_filter_is_back(node: AgentHost) -> None:
    pod, result = added(node)
    before = guards(node)
    assert before.strip()
    in_pod(node.name, "nft", "delete", "table", "inet", "felix")
    assert node.cni("CHECK", "c1", pod, config=result).status == 0
    assert guards(node) == before


def test_c8_more_than_ours_is_no_fault(node: AgentHost) -> None:
    pod, result = added(node)
    in_pod(pod, "ip", "route", "add", "192.0.2.0/24", "via", "169.254.1.1")
    in_pod(pod, "ip", "addr", "add", "198.51.100.7/32", "dev", "eth0")
    assert node.cni("CHECK", "c1", pod, config=result).status == 0


def test_c9_check_needs_prev_result(node: AgentHost) -> None:
    pod, _ = added(node)
    answer = node.cni("CHECK", "c1", pod)
    assert (answer.status, answer.code) == (1, 7)


# --- GC


def valid(*containers: str, key: str = "cni.dev/valid-attachments") -> dict[str, Any]:
    return {key: [{"containerID": container, "ifname": "eth0"} for container in containers]}


def collect(node: Host, **config: Any) -> int:
    return node.cni("GC", version="1.1.0", config=config).status


def test_g1_gc_removes_only_what_is_absent(node: AgentHost) -> None:
    for container in ("c1", "c2", "c3"):
        added(node, container)
    assert collect(node, **valid("c1", "c3", "c9")) == 0
    assert node.cni("ADD", "c1", node.pod()).code == 100
    assert len(node.held()) == 2


def test_g2_without_the_key_nothing_is_removed(node: AgentHost) -> None:
    added(node)
    assert collect(node) == 0
    assert len(node.held()) == 1


def test_g3_the_key_of_older_runtimes_is_accepted(node: AgentHost) -> None:
    for container in ("c1", "c2"):
        added(node, container)
    assert collect(node, **valid("c1", key="cni.dev/attachments")) == 0
    assert len(node.held()) == 1


def test_g4_gc_goes_on_after_a_failure_and_tells_of_it(tmp_path: Path) -> None:
    with host(tmp_path, "10.65.0.0/26") as node:
        for container in ("c1", "c2", "c3"):
            added(node, container)
        node.trouble("refuse removal of c2")
        answer = node.cni("GC", version="1.1.0", config=valid())
        assert (answer.status, answer.code) == (1, 5)
        assert "container/c2" in answer.message
        assert len(node.held()) == 1
        node.trouble("")
        assert collect(node, **valid()) == 0
        until(node.is_clean, "nothing is left")


def test_g5_gc_gives_addresses_back(node: AgentHost) -> None:
    added(node)
    assert collect(node, **valid("c2")) == 0
    assert node.held() == set()


def test_g6_gc_may_be_repeated(node: AgentHost) -> None:
    added(node)
    assert [collect(node, **valid()) for _ in range(3)] == [0, 0, 0]


def test_g7_an_empty_list_means_that_all_are_stale(node: AgentHost) -> None:
    for container in ("c1", "c2"):
        added(node, container)
    assert collect(node, **valid()) == 0
    until(lambda: is_clean(node), "nothing is left")


# --- STATUS


def test_s1_a_node_that_is_ready(node: AgentHost) -> None:
    answer = node.cni("STATUS", version="1.1.0")
    assert (answer.status, answer.text) == (0, "")


def test_s2_no_agent(alone: AgentHost) -> None:
    alone.stop(signal.SIGKILL)
    answer = alone.cni("STATUS", version="1.1.0")
    assert (answer.status, answer.code) == (1, 50)


def test_s3_a_peer_that_does_not_answer_keeps_no_pod_from_being_added(alone: AgentHost) -> None:
    peer = (
        "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: dead}\n"
        "spec: {peerIP: 172.31.1.99, asNumber: 64513}\n"
    )
    (alone.folder / "resources" / "peer.yaml").write_text(peer)
    until(lambda: node_knows(alone, "172.31.1.99"), "the agent has the peer")
    assert alone.cni("STATUS", version="1.1.0").status == 0
    added(alone)


def node_knows(node: AgentHost, address: str) -> bool:
    felixctl = Path(os.environ.get("FELIXCTL") or SHIM.with_name("felixctl"))
    words = ["ip", "netns", "exec", node.name, felixctl, "--socket", node.folder / "agent.sock", "bgp", "peers"]
    return address in command(*words, check=False)


def test_s4_a_route_that_the_kernel_refuses_limits_the_pods_that_are_there(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        node.trouble("limited")
        answer = node.cni("STATUS", version="1.1.0")
        assert (answer.status, answer.code) == (1, 51)
        assert "10.65.1.0/26" in answer.message


def test_s5_status_needs_no_variable_but_the_command(node: AgentHost) -> None:
    environment = {"CNI_COMMAND": "STATUS", "CNI_PATH": "/opt/cni/bin", "FELIX_CNI_SOCKET": str(node.socket)}
    done = felix_cni(environment, '{"cniVersion": "1.1.0", "name": "pods", "type": "felix-cni"}')
    assert (done.returncode, done.stdout) == (0, "")


# --- VERSION, and the process itself


def felix_cni(environment: dict[str, str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SHIM], env=environment, input=text, capture_output=True, text=True, check=False, timeout=30)


def test_v1_version_without_input() -> None:
    done = subprocess.run(
        [SHIM], env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, json.loads(done.stdout)["cniVersion"]) == (0, "1.1.0")


def test_v2_the_list_is_sorted() -> None:
    supported = json.loads(felix_cni({"CNI_COMMAND": "VERSION"}, "{}").stdout)["supportedVersions"]
    assert supported == sorted(supported) == ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def test_v3_version_needs_nothing_else() -> None:
    assert felix_cni({"CNI_COMMAND": "VERSION"}, '{"cniVersion": "1.1.0"}').returncode == 0


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "EXPLODE"])
def test_p1_p2_p3_json_or_nothing_on_standard_output_and_a_status_that_fits(node: AgentHost, verb: str) -> None:
    for version in ("1.1.0", "9.9.9"):
        answer = node.cni(verb, "c1", node.pod(), version=version)
        assert answer.stderr == ""
        assert answer.status in (0, 1)
        if answer.status == 1:
            assert set(answer.document) >= {"cniVersion", "code", "msg"}
            assert answer.code > 0
        elif answer.text:
            assert "code" not in answer.document
