"""The lab with VXLAN between its racks, and the one without BGP: brought up, looked at as a user does, taken down."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs import eventually, felix_lab, lab_name, standing

from felix_py.lab import health
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

LABS = Path(__file__).parents[2] / "deploy" / "lab"
VXLAN, HOST_GW = lab_name("vxlan"), lab_name("hostgw")


@pytest.fixture(scope="module")
def vxlan() -> Iterator[Lab]:
    with standing(VXLAN, "--topology", str(LABS / "two-racks-vxlan.yaml")) as lab:
        yield lab


@pytest.fixture(scope="module")
def host_gw() -> Iterator[Lab]:
    with standing(HOST_GW, "--topology", str(LABS / "host-gw.yaml")) as lab:
        yield lab


def on(lab: str, machine: str, *words: str, status: int = 0) -> str:
    called = felix_lab(lab, "exec", machine, *words)
    assert called.status == status, called.out + called.error
    return called.out + called.error


def asked(lab: str, *words: str) -> Any:
    return json.loads(on(lab, "a1", "felixctl", *words, "-o", "json"))


def routes(lab: str) -> dict[str, dict[str, Any]]:
    return {row["prefix"]: row for row in asked(lab, "routes")["routes"]}


def converged(lab: Lab) -> bool:
    return health.not_converged(lab, lab.topology()) == []


@pytest.mark.usefixtures("vxlan")
def test_everybody_reaches_everybody_by_both() -> None:
    called = felix_lab(VXLAN, "ping")
    assert called.status == 0, called.out
    assert called.out.count("90 of 90 pings answered") == 2


@pytest.mark.usefixtures("vxlan")
def test_only_the_other_rack_is_reached_by_vxlan_and_felixctl_says_why() -> None:
    found = routes(VXLAN)
    shown = {prefix: (row["encapsulation"], row["device"], row["driver"]) for prefix, row in found.items()}
    assert shown["10.65.1.0/26"] == shown["fd65::1:0/122"] == ("none", "eth0", None)
    assert shown["10.65.2.0/26"] == ("vxlan", "vxlan.calico", "kernel")
    assert shown["fd65::2:0/122"] == ("vxlan", "vxlan-v6.calico", "kernel")
    assert {row["state"] for row in found.values()} == {"installed"}
    why = on(VXLAN, "a1", "felixctl", "routes", "--why", "10.65.2.0/26")
    assert "next hop 172.31.2.11 is outside this node's subnet 172.31.1.0/24" in why


@pytest.mark.usefixtures("vxlan")
def test_felixctl_tunnels_tells_whom_each_device_reaches() -> None:
    rows = {row["device"]: row for row in asked(VXLAN, "tunnels")["tunnels"]}
    assert {name: (row["mtu"], row["vni"], row["port"], row["state"]) for name, row in rows.items()} == {
        "vxlan.calico": (1450, 4096, 4789, "installed"),
        "vxlan-v6.calico": (1430, 4096, 4789, "installed"),
    }
    behind = {remote["node"]: remote["prefixes"] for remote in rows["vxlan.calico"]["remotes"]}
    assert behind == {"172.31.1.12": [], "172.31.2.11": ["10.65.2.0/26"]}
    assert sum(rows["vxlan.calico"]["dropped"].values()) == 0
    assert "VNI 4096, UDP port 4789" in on(VXLAN, "a1", "felixctl", "tunnels", "-o", "wide")
    assert "vxlan.calico, kernel: VXLAN has no other driver" in on(VXLAN, "a1", "felixctl", "status")


def test_a_killed_agent_comes_back_and_no_pod_notices(vxlan: Lab) -> None:
    before = on(VXLAN, "a1", "ip", "-d", "link", "show", "vxlan.calico")
    assert felix_lab(VXLAN, "fail", "a1.agent").status == 0
    on(VXLAN, "a1-pod1", "ping", "-c", "20", "-i", "0.05", "-W", "1", vxlan.pod_addresses(4)["b1-pod1"])
    assert eventually(lambda: converged(vxlan))
    assert on(VXLAN, "a1", "ip", "-d", "link", "show", "vxlan.calico") == before, "the very same device"


@pytest.mark.usefixtures("host_gw")
def test_without_bgp_everybody_reaches_everybody_and_nobody_waits_for_it() -> None:
    called = felix_lab(HOST_GW, "ping")
    assert called.status == 0, called.out
    assert called.out.count("72 of 72 pings answered") == 2
    found = routes(HOST_GW)
    assert found["10.65.1.0/26"]["from"] == found["fd65::1:0/122"]["from"] == "block a2"
    assert found["10.65.1.0/26"]["nextHop"] == "172.31.1.12"
    assert "BGP is off: the settings say bgp: Disabled" in on(HOST_GW, "a1", "felixctl", "bgp", "peers")
    status = asked(HOST_GW, "status")
    assert (status["healthy"], status["bgp"]["configured"], status["bgp"]["childPid"]) == (True, 0, None)
    refused = on(HOST_GW, "a1", "felixctl", "bgp", "drain", status=2)
    assert "BGP is off on this node" in refused
    assert "[+]bgp ok" in on(HOST_GW, "a1", "curl", "-s", "http://127.0.0.1:9099/readyz?verbose")


def test_a_pool_takes_vxlan_and_gives_it_back_without_bgp(host_gw: Lab) -> None:
    file = host_gw.directory / "resources" / "cluster.yaml"
    before = file.read_text()
    target = host_gw.pod_addresses(4)["a2-pod1"]
    try:
        file.write_text(before.replace("ipipMode: Never", "vxlanMode: Always"))
        assert eventually(lambda: routes(HOST_GW)["10.65.1.0/26"]["device"] == "vxlan.calico")
        assert eventually(lambda: routes(HOST_GW)["fd65::1:0/122"]["device"] == "vxlan-v6.calico")
        on(HOST_GW, "a1-pod1", "ping", "-c", "3", "-i", "0.1", "-W", "1", target)
    finally:
        file.write_text(before)
    assert eventually(lambda: routes(HOST_GW)["10.65.1.0/26"]["device"] == "eth0")
    on(HOST_GW, "a1-pod1", "ping", "-c", "3", "-i", "0.1", "-W", "1", target)
