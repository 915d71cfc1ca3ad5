"""Addresses in a whole network: nodes claim their blocks, borrow when none is left, and felixctl tells all of it."""

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from labs import Called, eventually, felix_lab, lab_name, standing

pytestmark = pytest.mark.netns

NAME = lab_name("fipam")
TWO_RACKS = Path(__file__).parents[2] / "deploy" / "lab" / "two-racks.yaml"

NODES = {"a1", "a2", "b1", "b2"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Four nodes without blocks, and a pool that has two."""
    without_blocks = re.sub(r"blocks: \[[0-9./]+\], ", "", TWO_RACKS.read_text())
    topology = tmp_path_factory.mktemp("topology") / "borrowing.yaml"
    topology.write_text(without_blocks.replace("10.65.0.0/16", "10.65.0.0/25"))
    with standing(NAME, "--topology", str(topology)):
        yield NAME


def felixctl(node: str, *words: str) -> Called:
    return felix_lab(NAME, "exec", node, "felixctl", *words)


def told(node: str, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(felixctl(node, *words, "-o", "json").out)
    return found


@pytest.mark.usefixtures("lab")
def test_two_nodes_claim_the_blocks_and_the_others_borrow() -> None:
    blocks = told("a1", "blocks")["blocks"]
    assert [block["cidr"] for block in blocks] == ["10.65.0.0/26", "10.65.0.64/26"]
    assert {block["state"] for block in blocks} == {"confirmed"}
    owners = {block["node"] for block in blocks}
    assert len(owners) == 2
    assert owners < NODES
    borrowers = {held["node"] for block in blocks for held in block["allocations"]} - owners
    assert borrowers == NODES - owners
    assert sum(block["borrowed"] for block in blocks) == 6, "three pods of each of the two others"


@pytest.mark.usefixtures("lab")
def test_every_pod_reaches_every_other_by_whatever_address() -> None:
    assert eventually(lambda: felix_lab(NAME, "ping").status == 0)


@pytest.mark.usefixtures("lab")
def test_the_owner_of_a_block_sends_on_what_was_borrowed_from_it() -> None:
    block = told("a1", "blocks")["blocks"][0]
    borrowed = [held["address"] for held in block["allocations"] if held["node"] != block["node"]]
    routes = {row["prefix"]: row for row in told(block["node"], "routes")["routes"]}
    assert {routes[f"{address}/32"]["kind"] for address in borrowed} == {"remote"}
    assert routes[block["cidr"]]["kind"] == "blackhole"


@pytest.mark.usefixtures("lab")
def test_the_books_are_in_order_on_every_node() -> None:
    for node in NODES:
        called = felixctl(node, "ipam", "check")
        assert called.status == 0, called.out
        assert called.out == "2 blocks, 14 addresses held, 0 findings\n"


@pytest.mark.usefixtures("lab")
def test_who_holds_an_address_since_when() -> None:
    (pod,) = {row["addresses"][0] for row in told("b1", "endpoints")["endpoints"] if row["name"] == "default/b1-pod1"}
    found = told("a1", "ipam", "show", "--ip", pod)
    assert (found["state"], found["pod"], found["node"]) == ("held", "default/b1-pod1", "b1")
    assert ip_address(pod) in ip_network(found["block"])
    shown = felixctl("a1", "ipam", "show", "--ip", pod).out
    assert f"{pod} is held: IPPool default, block {found['block']} of node {found['blockNode']}\n" in shown
    assert felixctl("a1", "ipam", "show", "--ip", "10.65.0.60").status == 1, "nobody holds it"
    assert "default/b1-pod1" in felixctl("a1", "ipam", "show", "--blocks").out


@pytest.mark.usefixtures("lab")
def test_an_address_in_use_is_not_released_here_nor_from_another_node() -> None:
    rows = told("b1", "endpoints")["endpoints"]
    pod = rows[0]["addresses"][0]
    here = felixctl("b1", "ipam", "release", pod)
    assert (here.status, "is in use by default/b1-pod" in here.error) == (2, True)
    elsewhere = felixctl("a1", "ipam", "release", pod)
    assert (elsewhere.status, "is held on node b1, which alone knows" in elsewhere.error) == (2, True)
    assert felixctl("a1", "ipam", "release", "10.65.0.60").status == 1, "nobody holds it"
    assert felixctl("a1", "ipam", "release", "rubbish").error == (
        "felixctl: the address is 'rubbish'; give one as 10.65.0.5 or fd65::5\n"
    )
    assert felixctl("a1", "ipam", "check").status == 0


@pytest.mark.usefixtures("lab")
def test_usage_of_pools_and_blocks() -> None:
    (pool,) = told("a2", "pools")["pools"]
    assert (pool["size"], pool["used"], pool["blocks"], pool["state"]) == (128, 14, 2, "serves this node")
    assert "default  10.65.0.0/25  CrossSubnet  Never  2 of /26  14    114   [##..................] 11%" in (
        felixctl("a2", "pools").out
    )
