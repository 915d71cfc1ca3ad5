"""Resources that are wrong or changed while a node runs: named in one sentence, and what is not concerned stays."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_node import NAME, REMOTE, crosses, on_a1, problems, route_events, routes, settled
from labs import eventually, on_machine

from felix_py.calc.transition import LINGER
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("healthy_afterwards")]


@contextmanager
def resource(lab: Lab, name: str, text: str) -> Iterator[Path]:
    """Put a file into the resource folder that every node reads, and put everything back afterwards."""
    path = lab.directory / "resources" / name
    before = path.read_text() if path.exists() else None

    def write(content: str) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_text(content)
        temporary.rename(path)

    write(text)
    try:
        yield path
    finally:
        path.unlink() if before is None else write(before)


BROKEN = [
    pytest.param("kind: [IPPool\n", "cannot be read", id="broken YAML"),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: IPPolo, metadata: {name: x}, spec: {}}",
        "kind: is 'IPPolo', which is unknown",
        id="unknown kind",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: x}, spec: {cidr: 10.9.0.0/16, foo: 1}}",
        "IPPool x: spec.foo: is not supported; remove it",
        id="unsupported field",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: a}, spec: {cidr: 10.65.128.0/17}}",
        "IPPool a: spec.cidr: is 10.65.128.0/17, which overlaps IPPool default (10.65.0.0/16)",
        id="pool overlap",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: BlockAffinity, metadata: {name: x}, "
        "spec: {cidr: 10.9.0.0/26, node: a1, state: confirmed}}",
        "which lies in no IPPool",
        id="block outside any pool",
    ),
    pytest.param(
        "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: a0}, "
        "spec: {bgp: {ipv4Address: 172.31.1.11/24}}}",
        "Node a0: spec.bgp.ipv4Address: is 172.31.1.11, which Node a1 has already",
        id="two nodes with one address",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), BROKEN)
def test_a_faulty_resource_is_named_and_costs_nothing(lab: Lab, text: str, sentence: str) -> None:
    with route_events(lab, "a1") as events, resource(lab, "zz-faulty.yaml", text):
        assert eventually(lambda: any(sentence in problem for problem in problems())), problems()
        assert crosses()
        assert events.stop() == ()
    assert eventually(lambda: problems() == [])


def test_a_faulty_edit_of_a_file_keeps_what_it_said_before(lab: Lab) -> None:
    path = lab.directory / "resources" / "cluster.yaml"
    broken = path.read_text().replace("10.65.0.0/16", "10.65.0.1/16")
    with route_events(lab, "a1") as events, resource(lab, "cluster.yaml", broken):
        assert eventually(lambda: any("host bits" in problem for problem in problems())), problems()
        assert crosses()
        assert events.stop() == ()


@pytest.mark.parametrize(
    ("mode", "device"), [("Always", "tunl0"), ("Never", "eth0")], ids=["everything tunnelled", "nothing tunnelled"]
)
def test_another_mode_of_the_pool_moves_routes_in_place(lab: Lab, mode: str, device: str) -> None:
    path = lab.directory / "resources" / "cluster.yaml"
    changed = path.read_text().replace("CrossSubnet", mode)
    with resource(lab, "cluster.yaml", changed):
        assert eventually(lambda: {routes()[prefix]["device"] for prefix in ("10.65.1.0/26", REMOTE)} == {device})
        assert eventually(settled)
        # A tunnel that nobody needs any more stays for a while, for packets that are under way.
        assert eventually(lambda: ("tunl0" in on_a1("ip", "-br", "link")) == (mode == "Always"), LINGER + 10)
    assert eventually(lambda: routes()[REMOTE]["device"] == "tunl0")


def test_a_wrong_as_is_explained_and_touches_no_other_session(lab: Lab) -> None:
    path = lab.directory / "resources" / "peers.yaml"
    before = sessions_since()
    with resource(lab, "peers.yaml", path.read_text().replace("64500", "64999")):
        assert eventually(lambda: any("(tor-a1)" in problem and "AS" in problem for problem in problems()), 30), (
            problems()
        )
        assert {name: since for name, since in sessions_since().items() if name != "tor-a1"} == {
            name: since for name, since in before.items() if name != "tor-a1"
        }


def sessions_since() -> dict[str, str]:
    found = json.loads(on_machine(NAME, "a1", "felixctl", "bgp", "peers", "-o", "json").out)
    return {row["name"]: row["since"] for row in found["peers"]}


def test_an_unreachable_peer_is_named_and_harms_no_other(lab: Lab) -> None:
    peer = (
        "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: ghost}, "
        "spec: {node: a1, peerIP: 172.31.1.99, asNumber: 64999}}"
    )
    before = sessions_since()
    with resource(lab, "zz-ghost.yaml", peer):
        assert eventually(lambda: any("172.31.1.99 (ghost)" in problem for problem in problems())), problems()
        assert before.items() <= sessions_since().items()
        assert crosses()
    assert eventually(lambda: problems() == [])
