"""Pods with an address of each version of IP, by the real plugin: both work when ADD answers, and nothing is left."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cni_lab import Host, command, host, in_pod

pytestmark = pytest.mark.netns

WEB = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;IgnoreUnknown=1"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"
BLOCKS = ("10.65.0.0/26", "fd65::/122")


def as_a_router(node: Host) -> None:
    """Do what the agent does where a pool of IPv6 exists, and give the host an address that pods may speak to."""
    in_pod(node.name, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
    node.ip("addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path, *BLOCKS, before=as_a_router) as made:
        yield made


def routes6(node: Host) -> set[str]:
    found = json.loads(node.ip("-6", "-j", "route", "show"))
    return {route["dst"] for route in found if route["dst"].startswith("fd65:")}


def answers(pod: str, address: str) -> bool:
    return " 1 received" in in_pod(pod, "ping", "-c1", "-W2", address)


def test_both_addresses_work_as_soon_as_add_answers(node: Host) -> None:
    pod = node.pod()
    answer = node.cni("ADD", "c1", pod, arguments=WEB)
    assert answer.status == 0, answer.text
    assert node.pings("fd65::")
    assert node.pings("10.65.0.0")
    assert answer.document["ips"] == [
        {"address": "10.65.0.0/32", "gateway": "169.254.1.1", "interface": 1},
        {"address": "fd65::/128", "gateway": GATEWAY6, "interface": 1},
    ]
    assert answer.document["routes"] == [
        {"dst": "169.254.1.1/32"},
        {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
        {"dst": "::/0", "gw": GATEWAY6},
    ]


def test_the_first_packet_of_a_pod_gets_out(node: Host) -> None:
    pod = node.pod()
    assert node.cni("ADD", "c1", pod).status == 0
    assert answers(pod, "2001:db8::1")


def test_pods_reach_each_other_by_both(node: Host) -> None:
    one, two = node.pod(), node.pod()
    assert node.cni("ADD", "c1", one).status == node.cni("ADD", "c2", two).status == 0
    assert answers(one, "fd65::1")
    assert answers(one, "10.65.0.1")


def test_what_the_pod_sees(node: Host) -> None:
    pod = node.pod()
    assert node.cni("ADD", "c1", pod, arguments=WEB).status == 0
    (link,) = json.loads(in_pod(pod, "ip", "-j", "addr", "show", "dev", "eth0"))
    found = [each for each in link["addr_info"] if each["scope"] == "global"]
    assert [(each["local"], each["prefixlen"]) for each in found] == [("10.65.0.0", 32), ("fd65::", 128)]
    assert "tentative" not in in_pod(pod, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
    assert f"default via {GATEWAY6} dev eth0" in in_pod(pod, "ip", "-6", "route", "show")
    assert f"{GATEWAY6} lladdr ee:ee:ee:ee:ee:ee PERMANENT" in in_pod(pod, "ip", "-6", "neigh", "show", "dev", "eth0")
    assert in_pod(pod, "cat", "/proc/sys/net/ipv6/conf/all/forwarding") == "0\n"


def test_what_the_host_sees(node: Host) -> None:
    assert node.cni("ADD", "c1", node.pod(), arguments=WEB).status == 0
    assert routes6(node) == {"fd65::"}
    conf = "/proc/sys/net/ipv6/conf/cali0d7763386da"
    names = ("disable_ipv6", "accept_dad", "accept_ra", "forwarding")
    assert in_pod(node.name, "cat", *(f"{conf}/{name}" for name in names)) == "0\n0\n0\n1\n"
    shown = node.ip("-6", "addr", "show", "dev", "cali0d7763386da")
    assert f"{GATEWAY6}/64" in shown, "the gateway of every pod is the address that the kernel gave"
    assert "tentative" not in shown


def test_a_runtime_that_switched_ipv6_off_in_the_sandbox_is_overruled(node: Host) -> None:
    pod = node.pod()
    in_pod(pod, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    assert node.cni("ADD", "c1", pod).status == 0
    assert node.pings("fd65::")
    assert answers(pod, "2001:db8::1")


def test_a_node_without_ipv6_blocks_leaves_ipv6_of_its_pods_alone(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        pod = node.pod()
        in_pod(pod, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        answer = node.cni("ADD", "c1", pod)
        assert [each["address"] for each in answer.document["ips"]] == ["10.65.0.0/32"]
        assert in_pod(pod, "cat", "/proc/sys/net/ipv6/conf/all/disable_ipv6") == "1\n"


def test_a_node_with_ipv6_blocks_alone(tmp_path: Path) -> None:
    with host(tmp_path, "fd65::/122", before=as_a_router) as node:
        pod = node.pod()
        answer = node.cni("ADD", "c1", pod)
        assert [each["address"] for each in answer.document["ips"]] == ["fd65::/128"]
        assert answers(pod, "2001:db8::1")
        assert in_pod(pod, "ip", "-4", "route", "show") == ""
        assert node.cni("CHECK", "c1", pod, config={"prevResult": answer.document}).status == 0


def test_an_ipv6_address_of_choice(node: Host) -> None:
    answer = node.cni("ADD", "c1", node.pod(), arguments="IP=10.65.0.9,fd65::9")
    assert [each["address"] for each in answer.document["ips"]] == ["10.65.0.9/32", "fd65::9/128"]


def test_no_pod_has_half_of_its_addresses(tmp_path: Path) -> None:
    with host(tmp_path, "10.65.0.0/26", "fd65::/128", before=as_a_router) as node:
        assert node.cni("ADD", "c1", node.pod()).status == 0
        second = node.cni("ADD", "c2", node.pod())
        why = "block fd65::/128 is full: 1 of 1 in use; no block is left in IPPool pool-1 (fd65::/128)"
        assert (second.code, second.message) == (11, why)
        assert node.held() == {"10.65.0.0", "fd65::"}
        assert node.cni("STATUS", version="1.1.0").message == why


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(("-6", "route", "del", "default"), f"the pod has no default route by {GATEWAY6}", id="route"),
        pytest.param(("addr", "del", "fd65::/128", "dev", "eth0"), "eth0 lacks address fd65::", id="address"),
    ],
)
def test_check_finds_what_is_missing(node: Host, damage: tuple[str, ...], sentence: str) -> None:
    pod = node.pod()
    result = node.cni("ADD", "c1", pod, arguments=WEB).document
    assert node.cni("CHECK", "c1", pod, arguments=WEB, config={"prevResult": result}).status == 0
    command("ip", "-n", pod, *damage)
    found = node.cni("CHECK", "c1", pod, arguments=WEB, config={"prevResult": result})
    assert (found.code, found.message) == (103, f"default/web-0: {sentence}")


def test_del_leaves_nothing(node: Host) -> None:
    pod = node.pod()
    assert node.cni("ADD", "c1", pod).status == 0
    assert node.held() == {"10.65.0.0", "fd65::"}
    assert node.cni("DEL", "c1", pod).status == 0
    node.is_left_clean()
    assert routes6(node) == set()
    assert node.cni("ADD", "c2", node.pod()).address == "10.65.0.1", "addresses that were given back come last"
    assert node.held() == {"10.65.0.1", "fd65::1"}
