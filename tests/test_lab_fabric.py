"""Routers beyond routers: what BIRD and FRR are told where the network goes on, as goldens that the daemons accept."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from felix_py.lab import document, frr_router, rendering, routing
from felix_py.lab.state import Refused
from felix_py.lab.topology import Topology

FILE = Path(__file__).parents[1] / "deploy" / "lab" / "two-racks-spine.yaml"

SPINE = """\
! Router spine, written by felix-lab.
frr defaults traditional
hostname spine
log stdout
service integrated-vtysh-config
!
ip prefix-list pods seq 5 permit 10.65.0.0/16 le 32
!
router bgp 64501
 bgp router-id 172.31.0.2
 bgp log-neighbor-changes
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 neighbor 172.31.0.1 remote-as 64500
 neighbor 172.31.0.1 description tor
 neighbor 172.31.0.1 advertisement-interval 0
 neighbor 172.31.0.1 timers connect 1
 !
 address-family ipv4 unicast
  redistribute connected
  neighbor 172.31.0.1 activate
 exit-address-family
exit
"""


def parsed(text: str) -> Topology:
    return document.parse(yaml.safe_load(text), "lab.yaml")


@pytest.fixture
def fabric() -> Topology:
    return parsed(FILE.read_text())


@pytest.fixture
def frr_in_front() -> Topology:
    """Return the same with FRR as the nodes' own router, which leaks a default route."""
    return parsed(FILE.read_text().replace("daemon: bird ", "announceDefault: true\n    daemon: frr "))


def test_routers_hold_a_session_where_no_node_is(fabric: Topology) -> None:
    tor, spine = fabric.routers
    assert [*fabric.between_routers(tor)] == [(spine, "fabric")]
    assert [*fabric.between_routers(spine)] == [(tor, "fabric")]


def test_frr_beyond_the_router_of_the_racks(fabric: Topology) -> None:
    assert frr_router.frr_conf(fabric, fabric.routers[1]) == SPINE


def test_frr_believes_nodes_about_pods_only(frr_in_front: Topology) -> None:
    lines = frr_router.frr_conf(frr_in_front, frr_in_front.routers[0]).splitlines()
    assert " neighbor 172.31.2.11 remote-as 64512" in lines
    assert [line for line in lines if line.startswith("  neighbor 172.31.2.11")] == [
        "  neighbor 172.31.2.11 activate",
        "  neighbor 172.31.2.11 prefix-list pods in",
        "  neighbor 172.31.2.11 prefix-list pods out",
        "  neighbor 172.31.2.11 default-originate",
    ]
    assert [line for line in lines if line.startswith("  neighbor 172.31.0.2")] == ["  neighbor 172.31.0.2 activate"]


def test_bird_tells_nodes_of_pods_and_routers_of_everything(fabric: Topology) -> None:
    text = rendering.bird_conf(fabric, fabric.routers[0])
    assert (
        "  local 172.31.1.1 as 64500;\n  neighbor 172.31.1.11 as 64512;\n"
        "  ipv4 { export where (source = RTS_BGP && net ~ [ 10.65.0.0/16+ ] && ! (bgp_path ~ [= * 64512 * =])); };\n"
    ) in text
    assert "protocol bgp 'router-spine' {\n  local 172.31.0.1 as 64500;\n  neighbor 172.31.0.2 as 64501;\n" in text
    assert "  ipv4 { import all; export where source = RTS_DEVICE || source = RTS_BGP; };\n" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bird") is None, reason="needs BIRD 2: apt-get install bird2")
def test_bird_accepts_it(fabric: Topology, tmp_path: Path) -> None:
    path = tmp_path / "bird.conf"
    path.write_text(rendering.bird_conf(fabric, fabric.routers[0]))
    done = subprocess.run(["bird", "-p", "-c", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.frr
@pytest.mark.parametrize("router", [0, 1])
def test_frr_accepts_it(frr_in_front: Topology, tmp_path: Path, router: int) -> None:
    path = tmp_path / "frr.conf"
    path.write_text(frr_router.frr_conf(frr_in_front, frr_in_front.routers[router]))
    words = ["vtysh", "--dryrun", "--inputfile", path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_router_runs_bird_or_frr() -> None:
    with pytest.raises(Exception, match=r"routers.tor.daemon: is 'quagga'; give bird or frr"):
        parsed(FILE.read_text().replace("daemon: bird ", "daemon: quagga "))


def test_a_router_that_is_not_installed_is_named_with_the_line_that_installs_it(
    fabric: Topology, tmp_path: Path
) -> None:
    for name in ("bird", "birdc"):
        (tmp_path / name).touch(0o755)
    hidden = Topology(fabric.networks, (fabric.routers[0],), fabric.nodes, fabric.hosts, fabric.pools, fabric.bgp)
    routing.require(hidden, str(tmp_path))
    with pytest.raises(Refused, match="vtysh not found; install with: apt-get install frr"):
        routing.require(fabric, str(tmp_path))
