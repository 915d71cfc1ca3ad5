"""What the route-reflector recipe offers besides: the way from the mesh to it, passwords, and IPv6."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from labs import eventually, felix_lab, lab_name, standing
from reflector_lab import RR1, TOPOLOGY, bgp, nothing_lost, reflectors_hold_all, run

from felix_py.lab import health, machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.bird, pytest.mark.frr]

NAME = lab_name("rro")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(NAME, "--topology", str(TOPOLOGY)) as lab:
        yield lab


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """Have another text in a file for a while; no reader ever sees half of it."""
    before = path.read_text()
    try:
        replace(path, text)
        yield
    finally:
        replace(path, before)


def replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text(text)
    partial.replace(path)


def established(lab: Lab, node: str) -> int:
    return sum(peer["state"] == "Established" for peer in bgp(lab, node, "peers"))


def test_the_mesh_can_be_left_and_entered_again_without_a_packet_lost(lab: Lab) -> None:
    names = [str(node.name) for node in lab.topology().nodes]
    resources = lab.directory / "resources" / "cluster.yaml"
    meshed = resources.read_text().replace("nodeToNodeMeshEnabled: false", "nodeToNodeMeshEnabled: true")
    with nothing_lost(lab, "a1-pod1", "b1-pod1"):
        with changed(resources, meshed):
            assert eventually(lambda: all(established(lab, name) == 6 for name in names))
        assert eventually(lambda: all(len(bgp(lab, name, "peers")) == 3 for name in names))
        assert eventually(lambda: health.not_converged(lab, lab.topology()) == [])


@contextmanager
def peers_with_passwords(lab: Lab, secret: Path) -> Iterator[None]:
    path = lab.directory / "resources" / "peers.yaml"
    documents = list(yaml.safe_load_all(path.read_text()))
    for each in documents:
        if each["metadata"]["name"] in ("rr1", "rr2"):
            each["spec"]["passwordFile"] = str(secret)
    with changed(path, yaml.safe_dump_all(documents)):
        yield


@contextmanager
def reflectors_with_passwords(lab: Lab) -> Iterator[None]:
    """Take the comment signs of the recipe away, and start the daemons anew."""
    bird, frr = lab.of_router("rr1") / "etc" / "bird.conf", lab.of_router("rr2") / "etc" / "frr.conf"
    secret_bird = bird.read_text().replace("# password", "  password")
    secret_frr = frr.read_text().replace(" ! neighbor ", " neighbor ")
    assert (secret_bird.count("\n  password"), secret_frr.count(" password YOURS")) == (3, 2)
    with changed(bird, secret_bird), changed(frr, secret_frr):
        restart(lab)
        yield
    restart(lab)


def restart(lab: Lab) -> None:
    for name in ("rr1", "rr2"):
        before = machines.daemon(lab.of_router(name))
        felix_lab(NAME, "fail", f"{name}.bgp")
        assert eventually(lambda name=name, before=before: machines.daemon(lab.of_router(name)) not in (None, before))


def test_passwords_on_both_sides_are_taken_and_on_one_side_only_are_not(lab: Lab, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("YOURS\n")
    secret.chmod(0o600)
    with reflectors_with_passwords(lab):
        with peers_with_passwords(lab, secret):
            assert eventually(lambda: reflectors_hold_all(lab), 40)
            assert felix_lab(NAME, "ping").status == 0
        # Without a password the nodes hold the session with the router only.
        assert eventually(lambda: established(lab, "a1") == 1)
    assert eventually(lambda: reflectors_hold_all(lab), 40)


SPEAKER = """
log stderr {{ error, fatal }};
router id {address};
protocol device {{ }}
protocol static own {{ ipv6; route {prefix} unreachable; }}
protocol bgp reflector {{
  local {address} port 1790 as 64512; neighbor {reflector} as 64512; strict bind yes;
  connect delay time 1; connect retry time 1;
  ipv6 {{ import all; export where source = RTS_STATIC; next hop address {next_hop}; }};
}}
"""


@contextmanager
def speaker(lab: Lab, folder: Path, name: str, **words: str) -> Iterator[Path]:
    """Run a BIRD on the host that speaks IPv6 with one reflector; yield its control socket."""
    path, control = folder / f"{name}.conf", folder / f"{name}.ctl"
    path.write_text(SPEAKER.format(**words))
    command = [*machines.enter(lab, "client"), "bird", "-f", "-c", str(path), "-s", str(control)]
    with subprocess.Popen(command) as process:
        try:
            yield control
        finally:
            process.terminate()


def test_ipv6_is_reflected_from_either_to_the_other(lab: Lab, tmp_path: Path) -> None:
    one, other, foreign = "fd10:65:0:a::/64", "fd10:65:0:b::/64", "fd99::/64"
    run(lab, "client", "ip", "addr", "add", "172.31.9.20/24", "dev", "eth0")
    # FRR wants to know how a next hop is reached, as a machine with IPv6 does.
    run(lab, "rr2", "ip", "-6", "addr", "add", "fd31::12/64", "dev", "eth0", "nodad")
    first = {"address": "172.31.9.10", "prefix": one, "reflector": RR1, "next_hop": "fd31::a"}
    second = {"address": "172.31.9.20", "prefix": other, "reflector": "172.31.8.12", "next_hop": "fd31::b"}
    with (
        speaker(lab, tmp_path, "first", **first | {"prefix": f"{one} unreachable; route {foreign}"}) as a,
        speaker(lab, tmp_path, "second", **second) as b,
    ):

        def heard(control: Path) -> str:
            words = [*machines.enter(lab, "client"), "birdc", "-s", str(control), "show", "route", "all"]
            return subprocess.run(words, capture_output=True, text=True, check=False).stdout

        assert eventually(lambda: other in heard(a) and "fd31::b" in heard(a)), heard(a)
        assert eventually(lambda: one in heard(b) and "fd31::a" in heard(b)), heard(b)
        assert foreign in heard(a)
        assert foreign not in heard(b)
