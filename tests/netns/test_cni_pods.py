"""Pods by the real plugin: reachable when ADD answers, gone without a trace after DEL, undone when a step fails."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cni_lab import Host, host, in_pod, until

pytestmark = pytest.mark.netns

WEB = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;IgnoreUnknown=1"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path) as made:
        yield made


def test_a_pod_is_reachable_as_soon_as_add_answers(node: Host) -> None:
    pod = node.pod()
    answer = node.cni("ADD", "c1", pod, arguments=WEB)
    assert answer.status == 0, answer.text
    assert node.pings(answer.address)
    assert answer.document == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "cali0d7763386da", "mac": "ee:ee:ee:ee:ee:ee"},
            {"name": "eth0", "mac": "02:00:0a:41:00:00", "sandbox": f"/run/netns/{pod}"},
        ],
        "ips": [{"address": "10.65.0.0/32", "gateway": "169.254.1.1", "interface": 1}],
        "routes": [{"dst": "169.254.1.1/32"}, {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        "dns": {},
    }


def test_what_the_pod_sees(node: Host) -> None:
    pod = node.pod()
    assert node.cni("ADD", "c1", pod, arguments=WEB).status == 0
    assert in_pod(pod, "ip", "route", "show").split("\n")[:2] == [
        "default via 169.254.1.1 dev eth0 ",
        "169.254.1.1 dev eth0 scope link ",
    ]
    assert "169.254.1.1 lladdr ee:ee:ee:ee:ee:ee PERMANENT" in in_pod(pod, "ip", "neigh", "show", "dev", "eth0")
    (link,) = json.loads(in_pod(pod, "ip", "-j", "addr", "show", "dev", "eth0"))
    assert (link["mtu"], link["operstate"], link["address"]) == (1480, "UP", "02:00:0a:41:00:00")
    assert [(each["local"], each["prefixlen"]) for each in link["addr_info"] if each["family"] == "inet"] == [
        ("10.65.0.0", 32)
    ]
    assert "UP" in in_pod(pod, "ip", "link", "show", "lo")
    assert in_pod(pod, "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"


def test_what_the_host_sees(node: Host) -> None:
    assert node.cni("ADD", "c1", node.pod(), arguments=WEB).status == 0
    (link,) = json.loads(node.ip("-j", "link", "show", "dev", "cali0d7763386da"))
    assert (link["mtu"], link["address"]) == (1480, "ee:ee:ee:ee:ee:ee")
    assert link["ifalias"] == "felix c1 eth0 pods 10.65.0.0 default/web-0"
    assert node.routes() == {"10.65.0.0"}
    conf = "/proc/sys/net/ipv4/conf/cali0d7763386da"
    values = in_pod(node.name, "cat", f"{conf}/proxy_arp", f"{conf}/forwarding", f"{conf}/route_localnet")
    assert values == "1\n1\n1\n"


def test_del_leaves_nothing_and_may_be_repeated(node: Host) -> None:
    pod = node.pod()
    node.cni("ADD", "c1", pod, arguments=WEB)
    assert not node.is_clean()
    for _ in range(3):
        answer = node.cni("DEL", "c1", pod, arguments=WEB)
        assert (answer.status, answer.text) == (0, "")
        node.is_left_clean()


@pytest.mark.parametrize("netns", ["", "/run/netns/gone"])
def test_del_works_without_the_namespace(node: Host, netns: str) -> None:
    node.cni("ADD", "c1", node.pod())
    assert node.cni("DEL", "c1", netns).status == 0
    node.is_left_clean()


def test_del_of_a_pod_whose_namespace_died(node: Host) -> None:
    pod = node.pod()
    node.cni("ADD", "c1", pod)
    in_pod(node.name, "ip", "netns", "del", pod)
    until(lambda: node.veths() == set(), "the veth dies with its namespace")
    assert node.held() == {"10.65.0.0"}
    assert node.cni("DEL", "c1").status == 0
    node.is_left_clean()


def test_del_of_what_was_never_added(node: Host) -> None:
    assert node.cni("DEL", "c9").status == 0


def test_adding_twice_is_refused_and_the_first_stays(node: Host) -> None:
    pod = node.pod()
    first = node.cni("ADD", "c1", pod)
    second = node.cni("ADD", "c1", pod)
    assert (second.status, second.code) == (1, 100)
    assert "c1 has eth0 already, with 10.65.0.0" in second.message
    assert node.pings(first.address)
    assert node.held() == {"10.65.0.0"}


def test_an_interface_of_somebody_else_stays_as_it_is(node: Host) -> None:
    pod = node.pod()
    in_pod(pod, "ip", "link", "add", "eth0", "type", "bridge")
    answer = node.cni("ADD", "c1", pod)
    assert (answer.status, answer.code) == (1, 101)
    assert f"/run/netns/{pod} has an interface eth0 already" in answer.message
    node.is_left_clean()
    assert "bridge" in in_pod(pod, "ip", "-d", "link", "show", "eth0")


@pytest.mark.parametrize(
    ("netns", "code", "words"),
    [
        pytest.param("/run/netns/gone", 4, "cannot be opened", id="missing"),
        pytest.param("/etc/hostname", 8, "no network namespace", id="a file"),
        pytest.param("/proc/self/ns/uts", 8, "no network namespace", id="another kind"),
        pytest.param("HOST", 8, "the host's own namespace", id="the host's own"),
    ],
)
def test_a_namespace_that_is_none(node: Host, netns: str, code: int, words: str) -> None:
    answer = node.cni("ADD", "c1", node.name if netns == "HOST" else netns)
    assert (answer.status, answer.code) == (1, code)
    assert words in answer.message
    node.is_left_clean()


def test_twenty_at_once_get_twenty_addresses(node: Host) -> None:
    pods = [node.pod() for _ in range(20)]
    calls = [node.begin("ADD", f"c{number}", pod) for number, pod in enumerate(pods)]
    addresses = {call.answer().address for call in calls}
    assert len(addresses) == 20
    assert addresses == node.held()
    assert [address for address in addresses if not node.pings(address)] == []
    calls = [node.begin("DEL", f"c{number}") for number in range(20)]
    assert {call.answer().status for call in calls} == {0}
    node.is_left_clean()


def test_a_full_block_is_a_sentence_and_status_says_it_too(tmp_path: Path) -> None:
    with host(tmp_path, "10.65.0.0/31") as node:
        assert node.cni("STATUS", version="1.1.0").status == 0
        assert [node.cni("ADD", f"c{number}", node.pod()).status for number in range(2)] == [0, 0]
        third = node.cni("ADD", "c3", node.pod())
        assert (third.status, third.code) == (1, 11)
        assert third.message == (
            "block 10.65.0.0/31 is full: 2 of 2 in use; no block is left in IPPool pool-0 (10.65.0.0/31)"
        )
        status = node.cni("STATUS", version="1.1.0")
        assert (status.status, status.code) == (1, 50)
        assert node.cni("DEL", "c0").status == 0
        assert node.cni("ADD", "c3", node.pod()).address == "10.65.0.0"


def test_freed_addresses_come_last(node: Host) -> None:
    given = [node.cni("ADD", f"c{number}", node.pod()).address for number in range(2)]
    node.cni("DEL", "c0")
    assert given == ["10.65.0.0", "10.65.0.1"]
    assert node.cni("ADD", "c3", node.pod()).address == "10.65.0.2"


def test_an_address_of_choice(node: Host) -> None:
    assert node.cni("ADD", "c1", node.pod(), arguments="IP=10.65.0.9").address == "10.65.0.9"
    by_run_time = node.cni("ADD", "c2", node.pod(), config={"runtimeConfig": {"ips": ["10.65.0.11/32"]}})
    assert by_run_time.address == "10.65.0.11"
    taken = node.cni("ADD", "c3", node.pod(), arguments="IP=10.65.0.9")
    assert (taken.code, taken.message) == (11, "10.65.0.9 is held by container/c1 (eth0 of c1)")


def test_a_refused_route_undoes_everything(node: Host) -> None:
    node.trouble("refuse routes")
    answer = node.cni("ADD", "c1", node.pod(), arguments=WEB)
    assert (answer.status, answer.code, answer.message) == (1, 102, "default/web-0: the route was refused")
    node.is_left_clean()


def test_a_node_that_is_not_ready_asks_for_patience(node: Host) -> None:
    node.trouble("not ready")
    answer = node.cni("ADD", "c1", node.pod())
    assert (answer.code, answer.message) == (11, "the node is not in sync yet")
    assert node.cni("STATUS", version="1.1.0").code == 50
    assert node.cni("DEL", "c1").status == 0


def test_stopping_the_agent_undoes_a_pod_that_was_half_made(node: Host) -> None:
    node.trouble("wait")
    call = node.begin("ADD", "c1", node.pod())
    until(node.veths, "the veth is there")
    node.stop()
    assert call.answer().code == 11
    node.is_left_clean()


def test_del_comes_second_when_add_still_runs(node: Host) -> None:
    node.trouble("wait")
    adding = node.begin("ADD", "c1", node.pod())
    until(node.veths, "the veth is there")
    deleting = node.begin("DEL", "c1")
    assert node.cni("DEL", "c2").status == 0, "about another pod the server does not wait"
    assert deleting.process.poll() is None
    node.trouble("")
    assert [adding.answer().status, deleting.answer().status] == [0, 0]
    node.is_left_clean()


def test_killing_the_agent_in_the_middle_leaves_what_a_del_removes(node: Host) -> None:
    node.trouble("wait")
    call = node.begin("ADD", "c1", node.pod(), arguments=WEB)
    until(node.veths, "the veth is there")
    node.stop(signal.SIGKILL)
    assert call.answer().code == 11
    node.trouble("")
    node.start()
    assert node.cni("DEL", "c1").status == 0
    node.is_left_clean()


def test_a_new_sandbox_of_the_same_pod_replaces_the_old_one(node: Host) -> None:
    node.cni("ADD", "old", node.pod(), arguments=WEB)
    answer = node.cni("ADD", "new", node.pod(), arguments=WEB)
    assert answer.status == 0, answer.text
    assert node.held() == {answer.address}
    assert node.cni("DEL", "old", arguments=WEB).status == 0, "the late DEL of the old one"
    assert node.pings(answer.address)


def test_a_veth_that_another_network_left_is_replaced(node: Host) -> None:
    node.ip("link", "add", "cali0d7763386da", "type", "veth", "peer", "name", "left0")
    answer = node.cni("ADD", "c1", node.pod(), arguments=WEB)
    assert answer.status == 0, answer.text
    assert node.pings(answer.address)


def test_a_second_interface_has_a_veth_of_its_own(node: Host) -> None:
    pod = node.pod()
    node.cni("ADD", "c1", pod, arguments=WEB)
    answer = node.cni("ADD", "c1", pod, arguments=WEB, interface="net1")
    assert answer.status == 1
    assert "route 169.254.1.1/32" in answer.message or "route 0.0.0.0/0" in answer.message
    until(lambda: len(node.veths()) == 1, "what was begun is gone")


def test_behind_another_plugin_the_results_are_joined(node: Host) -> None:
    before = {"cniVersion": "1.0.0", "interfaces": [{"name": "x0"}], "ips": [{"address": "192.0.2.1/24"}], "dns": {}}
    document = node.cni("ADD", "c1", node.pod(), config={"prevResult": before}).document
    assert [each["name"] for each in document["interfaces"]][::2] == ["x0", "eth0"]
    assert document["ips"][1]["interface"] == 2


def test_check_finds_what_is_missing(node: Host) -> None:
    pod = node.pod()
    result = {"prevResult": node.cni("ADD", "c1", pod).document}
    assert node.cni("CHECK", "c1", pod, config=result).text == ""
    in_pod(pod, "ip", "route", "add", "192.0.2.0/24", "via", "169.254.1.1")
    assert node.cni("CHECK", "c1", pod, config=result).status == 0, "more than ours is no fault"
    in_pod(pod, "ip", "route", "del", "default")
    assert "no default route" in node.cni("CHECK", "c1", pod, config=result).message
    in_pod(pod, "ip", "addr", "flush", "dev", "eth0")
    assert "eth0 lacks address 10.65.0.0" in node.cni("CHECK", "c1", pod, config=result).message
    (veth,) = node.veths()
    node.ip("link", "set", veth, "down")
    assert f"{veth} is down" in node.cni("CHECK", "c1", pod, config=result).message
    assert node.cni("CHECK", "c1", pod).code == 7, "without prevResult"
    assert node.cni("CHECK", "c2", pod, config=result).code == 3


def test_gc_removes_only_what_it_is_told_to(node: Host) -> None:
    for number in range(3):
        node.cni("ADD", f"c{number}", node.pod())
    assert node.cni("GC", version="1.1.0").status == 0
    assert len(node.held()) == 3, "without a list nothing is removed"
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        valid = [{"containerID": "c0", "ifname": "eth0"}, {"containerID": "c1", "ifname": "eth0"}]
        assert node.cni("GC", version="1.1.0", config={key: valid}).status == 0
        assert len(node.held()) == 2
    assert node.cni("GC", version="1.1.0", config={"name": "others", "cni.dev/valid-attachments": []}).status == 0
    assert len(node.held()) == 2, "of another network"
    assert node.cni("GC", version="1.1.0", config={"cni.dev/valid-attachments": []}).status == 0
    node.is_left_clean()
