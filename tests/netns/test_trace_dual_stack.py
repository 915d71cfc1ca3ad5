"""Packets of IPv6 followed through a real lab, and a tunnel that a process carries: the other halves of a trace."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from labs import eventually, lab_name, standing

from felix_py.lab import main, tracing
from felix_py.lab.machines import enter, environment
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NAME = lab_name("trace6")


@pytest.fixture(scope="module", autouse=True)
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Bring the dual-stack lab up, its tunnels carried by processes."""
    document = yaml.safe_load(main.default_topology().with_name("dual-stack.yaml").read_text())
    document.setdefault("agent", {})["tunnelDriver"] = "tun"
    file = tmp_path_factory.mktemp("lab") / "dual-stack.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    with standing(NAME, "--topology", str(file)) as lab:
        yield lab


def on(machine: str, *words: str) -> str:
    command = [*enter(Lab(NAME), machine), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def trace(source: str, target: str, version: int | None = None) -> dict[str, Any]:
    return dict(tracing.trace(Lab(NAME), Lab(NAME).topology(), source, target, None, version))


def machines(document: dict[str, Any]) -> list[str]:
    return [hop["machine"] for hop in document["hops"]]


def test_a_pod_is_reached_by_ipv6_without_a_tunnel() -> None:
    found = trace("a1-pod1", "b2-pod3", 6)
    assert (found["delivered"], found["reason"]) == (True, f"{found['destination']['address']} is here")
    assert ":" in found["destination"]["address"]
    assert machines(found) == ["a1-pod1", "a1", "tor", "b2", "b2-pod3"]
    assert {leg["tunnel"] for hop in found["hops"] for leg in hop["legs"]} == {None}
    assert found["hops"][1]["legs"][0]["from"] == "bgp fd31:2::12 (b2)"


def test_a_tunnel_that_a_process_carries_is_told_as_one() -> None:
    found = trace("a1-pod1", "b2-pod3")
    assert found["delivered"] is True
    assert found["hops"][1]["legs"][0]["tunnel"] == "ipip by tun, 172.31.1.11 to 172.31.2.12"


def test_the_blackhole_of_an_ipv6_block_ends_it() -> None:
    found = trace("a1-pod1", "fd65::2:3e")
    assert found["delivered"] is False
    assert found["reason"] == ("b1: it ends in a blackhole, fd65::2:0/122: block b1 is here, and no pod has fd65::2:3e")


def test_an_ipv6_destination_without_a_route_is_said() -> None:
    found = trace("a1-pod1", "2001:db8::1")
    assert (found["delivered"], found["reason"]) == (False, "tor: no route leads to 2001:db8::1")


def test_a_neighbour_that_does_not_answer_discovery_is_said() -> None:
    rule = "type filter hook input priority 0; icmpv6 type nd-neighbor-solicit drop;"
    on("b2", "nft", f"table inet other {{ chain input {{ {rule} }}; }}")
    try:
        on("tor", "ip", "-6", "neigh", "flush", "dev", "rack-b", "nud", "all")
        found = trace("a1-pod1", "b2-pod3", 6)
    finally:
        on("b2", "nft", "delete", "table", "inet", "other")
    assert eventually(lambda: bool(trace("a1-pod1", "b2-pod3", 6)["delivered"]))
    assert found["delivered"] is False
    assert "fd31:2::12 does not answer neighbour discovery on rack-b: neighbour incomplete" in found["reason"]


def test_protocol_4_is_probed_through_processes_too() -> None:
    rule = "ip saddr 172.31.2.12 ip daddr 172.31.1.11 ip protocol 4 drop"
    on("tor", "nft", f"table inet other {{ chain f {{ type filter hook forward priority 0; {rule}; }}; }}")
    try:
        done = subprocess.run(
            [*enter(Lab(NAME), "a1"), "felixctl", "doctor"],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
    finally:
        on("tor", "nft", "delete", "table", "inet", "other")
    assert done.returncode == 1
    assert "protocol 4 from b2 (172.31.2.12) to this node is filtered" in done.stdout
