"""The checklist of the CNI specification for ADD, one test an item, called by its number. The whole agent answers."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cni_agent import AgentHost, empty, is_clean, prepare
from cni_lab import host, in_pod, until

pytestmark = pytest.mark.netns

WEB = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=7;IgnoreUnknown=1"
GATEWAY = "169.254.1.1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentHost]:
    with host(tmp_path_factory.mktemp("node"), kind=AgentHost, before=prepare) as made:
        yield made


@pytest.fixture
def node(shared: AgentHost) -> Iterator[AgentHost]:
    """One agent for all tests; each leaves it as it was."""
    yield shared
    empty(shared)


def test_a1_a_veth_with_a_single_address_and_the_gateway(node: AgentHost) -> None:
    pod = node.pod()
    document = node.cni("ADD", "c1", pod, arguments=WEB).document
    assert json.loads(json.dumps(document)) == document
    (address,) = document["ips"]
    assert address["address"].endswith("/32")
    assert (address["gateway"], address["interface"]) == (GATEWAY, 1)
    assert document["routes"] == [{"dst": f"{GATEWAY}/32"}, {"dst": "0.0.0.0/0", "gw": GATEWAY}]
    assert document["interfaces"][1]["sandbox"] == f"/run/netns/{pod}"
    shown = in_pod(pod, "ip", "route").split("\n")
    assert [line.strip() for line in shown[:2]] == [f"default via {GATEWAY} dev eth0", f"{GATEWAY} dev eth0 scope link"]


def test_a2_an_interface_of_that_name_stays_and_nothing_changes(node: AgentHost) -> None:
    pod = node.pod()
    in_pod(pod, "ip", "link", "add", "eth0", "type", "bridge")
    before = in_pod(pod, "ip", "-d", "link")
    answer = node.cni("ADD", "c1", pod)
    assert (answer.status, answer.code) == (1, 101)
    assert in_pod(pod, "ip", "-d", "link") == before
    until(lambda: is_clean(node), "neither address nor interface is left")


def test_a3_a_missing_namespace_is_an_error_and_leaks_nothing(node: AgentHost) -> None:
    answer = node.cni("ADD", "c1", "/run/netns/none-such")
    assert (answer.status, answer.code) == (1, 4)
    assert "/run/netns/none-such" in answer.message
    assert is_clean(node)


def test_a4_the_hosts_own_namespace_is_refused(node: AgentHost) -> None:
    answer = node.cni("ADD", "c1", node.name)
    assert (answer.status, answer.code) == (1, 8)
    assert is_clean(node)


@pytest.mark.parametrize("moment", ["veth", "address"])
def test_a5_del_after_a_crash_in_the_middle_leaves_nothing(tmp_path: Path, moment: str) -> None:
    with host(tmp_path) as crashing:
        crashing.trouble("wait")
        call = crashing.begin("ADD", "c1", crashing.pod(), arguments=WEB)
        until(crashing.veths if moment == "veth" else crashing.held, f"the {moment} is there")
        crashing.stop(signal.SIGKILL)
        assert call.answer().code == 11
        crashing.trouble("")
        crashing.start()
        assert crashing.cni("DEL", "c1", arguments=WEB).status == 0
        until(crashing.is_clean, "nothing is left")


def test_a6_both_addresses_name_the_pods_interface(tmp_path: Path) -> None:
    with host(tmp_path, "10.65.0.0/26", "fd65::/122") as dual:
        before = {"cniVersion": "1.0.0", "interfaces": [{"name": "x0"}, {"name": "x1"}]}
        document = dual.cni("ADD", "c1", dual.pod(), config={"prevResult": before}).document
        assert [each["interface"] for each in document["ips"]] == [3, 3]
        assert document["interfaces"][3]["name"] == "eth0"
        assert [each["address"].rpartition("/")[2] for each in document["ips"]] == ["32", "128"]


def test_a7_the_result_of_the_plugins_before_is_passed_on(node: AgentHost) -> None:
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "x0"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 0}],
        "routes": [{"dst": "198.51.100.0/24"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    document = node.cni("ADD", "c1", node.pod(), config={"prevResult": before}).document
    assert document["interfaces"][0] == {"name": "x0"}
    assert document["ips"][0] == before["ips"][0]  # type: ignore[index]
    assert document["ips"][1]["interface"] == 2
    assert document["routes"][0] == {"dst": "198.51.100.0/24"}
    assert document["dns"] == before["dns"]


def test_a8_keys_that_we_do_not_know_are_accepted(node: AgentHost) -> None:
    config = {"colour": "green", "capabilities": {"ips": True}, "args": {"cni": {"labels": []}}, "dns": {}}
    assert node.cni("ADD", "c1", node.pod(), config=config, arguments="IgnoreUnknown=1;COLOUR=green").status == 0


@pytest.mark.parametrize("version", ["0.2.0", "2.0.0", ""])
def test_a9_a_version_that_is_not_served_is_answered_with_the_list(node: AgentHost, version: str) -> None:
    answer = node.cni("ADD", "c1", node.pod(), version=version)
    assert (answer.status, answer.code) == (1, 1)
    assert "0.3.1, 0.4.0, 1.0.0, 1.1.0" in answer.message
    assert is_clean(node)


def test_a10_input_that_is_no_json(node: AgentHost) -> None:
    answer = node.cni("ADD", "c1", node.pod(), text='{"cniVersion": "1.0.0", "na')
    assert (answer.status, answer.code) == (1, 6)


def test_a11_a_network_without_a_name(node: AgentHost) -> None:
    answer = node.cni("ADD", "c1", node.pod(), config={"name": ""})
    assert (answer.status, answer.code) == (1, 7)


def test_a12_a_node_without_addresses_asks_for_patience_and_status_says_so(tmp_path: Path) -> None:
    with host(tmp_path, "10.65.0.0/32") as small:
        assert small.cni("ADD", "c1", small.pod()).status == 0
        answer = small.cni("ADD", "c2", small.pod())
        assert (answer.status, answer.code) == (1, 11)
        assert small.cni("STATUS", version="1.1.0").code == 50


def test_a13_twenty_at_once_have_twenty_addresses(node: AgentHost) -> None:
    pods = [node.pod() for _ in range(20)]
    calls = [node.begin("ADD", f"c{number}", pod) for number, pod in enumerate(pods)]
    addresses = {call.answer().address for call in calls}
    assert len(addresses) == 20
    assert addresses == node.held()


def test_a14_the_second_add_of_a_container_is_refused_and_the_first_stays(node: AgentHost) -> None:
    pod = node.pod()
    first = node.cni("ADD", "c1", pod)
    second = node.cni("ADD", "c1", pod)
    assert (second.status, second.code) == (1, 100)
    assert node.pings(first.address)
    assert node.held() == {first.address}


@pytest.mark.parametrize(
    ("version", "of_ip", "of_route", "of_interface"),
    [
        ("0.3.1", {"version"}, set(), set()),
        ("0.4.0", {"version"}, set(), set()),
        ("1.0.0", set(), set(), set()),
        ("1.1.0", set(), {"scope"}, {"mtu"}),
    ],
)
def test_a15_the_result_has_the_form_of_its_version(
    node: AgentHost, version: str, of_ip: set[str], of_route: set[str], of_interface: set[str]
) -> None:
    document = node.cni("ADD", "c1", node.pod(), version=version).document
    assert document["cniVersion"] == version
    assert set(document) == {"cniVersion", "interfaces", "ips", "routes", "dns"}
    assert set(document["ips"][0]) == {"address", "gateway", "interface"} | of_ip
    assert set(document["routes"][0]) == {"dst"} | of_route
    assert set(document["interfaces"][1]) == {"name", "mac", "sandbox"} | of_interface


def test_a16_an_address_by_cni_args(node: AgentHost) -> None:
    assert node.cni("ADD", "c1", node.pod(), arguments=f"{WEB};IP=10.65.0.33").address == "10.65.0.33"


@pytest.mark.parametrize("name", ["portMappings", "bandwidth", "dns"])
def test_a17_what_a_chained_plugin_should_do_is_refused_by_name(node: AgentHost, name: str) -> None:
    config = {"runtimeConfig": {name: {"ingressRate": 1}}}
    answer = node.cni("ADD", "c1", node.pod(), config=config)
    assert (answer.status, answer.code) == (1, 2)
    assert f"runtimeConfig.{name}" in answer.message
    assert is_clean(node)


def test_a17_hardware_address_and_addresses_by_the_runtime(node: AgentHost) -> None:
    config = {"runtimeConfig": {"mac": "02:11:22:33:44:55", "ips": ["10.65.0.34/32"]}}
    answer = node.cni("ADD", "c1", node.pod(), config=config)
    assert answer.document["interfaces"][1]["mac"] == "02:11:22:33:44:55"
    assert answer.address == "10.65.0.34"
    assert node.pings("10.65.0.34")


def test_a18_an_address_goes_back_when_a_later_step_fails(tmp_path: Path) -> None:
    with host(tmp_path) as refusing:
        refusing.trouble("refuse routes")
        assert refusing.cni("ADD", "c1", refusing.pod()).code == 102
        assert refusing.held() == set()
        until(refusing.is_clean, "nothing is left")


def test_annotations_choose_address_pool_and_hardware_address(node: AgentHost) -> None:
    asked = {"ipAddrs": '["10.65.0.35"]', "hwAddr": "02:aa:00:00:00:01"}
    passed = {
        "io.kubernetes.cri.pod-annotations": {f"cni.projectcalico.org/{name}": each for name, each in asked.items()}
    }
    answer = node.cni("ADD", "c1", node.pod(), config={"runtimeConfig": passed})
    assert (answer.address, answer.document["interfaces"][1]["mac"]) == ("10.65.0.35", "02:aa:00:00:00:01")
    by_pool = {"ipam": {"type": "felix", "ipv4_pools": ["red"]}}
    refused = node.cni("ADD", "c2", node.pod(), config=by_pool)
    assert (refused.code, refused.message.count("the pod asks for red")) == (11, 1)
    assert node.cni("ADD", "c3", node.pod(), config={"ipam": {"ipv4_pools": ["default"]}}).status == 0


def test_an_address_that_another_pod_had_just_now_is_routed_to_the_new_one(node: AgentHost) -> None:
    """Within a second; what was tracked of the old one is forgotten first, so that such an ADD takes a turn."""
    for number in range(4):
        pod = node.pod()
        answer = node.cni("ADD", f"c{number}", pod, arguments="IP=10.65.0.36")
        assert answer.status == 0, answer.text
        assert node.pings("10.65.0.36")
        assert "10.65.0.36" in in_pod(pod, "ip", "addr", "show", "dev", "eth0")
        assert node.cni("DEL", f"c{number}").status == 0
