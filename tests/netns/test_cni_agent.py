"""The real agent behind the real plugin: what a container runtime sees of a whole node."""

import json
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cni_agent import AGENT, RESOURCES, AgentHost, prepare
from cni_lab import Host, command, host, until

pytestmark = pytest.mark.netns

WEB = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path, kind=AgentHost, before=prepare) as made:
        yield made


def workloads(node: Host) -> set[str]:
    return {dst for dst in node.routes() if dst.startswith("10.65.0.") and "/" not in dst}


def test_from_add_to_del(node: Host) -> None:
    answer = node.cni("ADD", "c1", node.pod(), version="1.1.0", arguments=WEB)
    assert answer.status == 0, answer.text
    assert workloads(node) == {answer.address}
    assert node.pings(answer.address)
    assert {interface["mtu"] for interface in answer.document["interfaces"]} == {1400}
    assert node.cni("DEL", "c1").status == 0
    until(lambda: not workloads(node), "the pod's route is gone")
    assert node.held() == set()


def test_pods_live_on_when_the_agent_is_killed_and_started_again(node: Host) -> None:
    pod = node.pod()
    address = node.cni("ADD", "c1", pod, arguments=WEB).address
    node.stop(signal.SIGKILL)
    assert node.pings(address)
    node.start()
    assert node.pings(address)
    assert workloads(node) == {address}
    put = [event["dst"] for event in node.log if event["event"] == "route.put"]
    assert put.count(f"{address}/32") == 1, "the second agent had nothing to write for it"
    assert node.cni("CHECK", "c1", pod, config={"prevResult": {"cniVersion": "1.0.0", "ips": []}}).status == 0
    assert node.cni("DEL", "c1").status == 0


def test_a_route_is_put_back_while_pods_come_one_after_the_other(node: Host) -> None:
    several = iter([node.pod() for _ in range(60)])

    def come(number: int, until_there: str = "") -> int:
        """Have so many pods come at most; return how many it took until a route was there."""
        for count in range(number):
            if until_there in workloads(node):
                return count
            assert node.cni("ADD", f"c{len(workloads(node))}-{number}", next(several)).status == 0
        return number

    first = node.cni("ADD", "first", next(several)).address
    come(10)
    node.ip("route", "del", first)
    assert come(40, first) < 40, "no turn came that looked at what somebody had done"
    until(lambda: any(event["event"] == "route.repaired" for event in node.log), "it is told")


def test_twenty_at_once(node: Host) -> None:
    pods = [node.pod() for _ in range(20)]
    calls = [node.begin("ADD", f"c{number}", pod) for number, pod in enumerate(pods)]
    addresses = {call.answer().address for call in calls}
    assert len(addresses) == 20
    assert workloads(node) == addresses


def test_a_pod_is_routed_ahead_of_the_turn_that_finds_nothing_to_do(node: Host) -> None:
    addresses = {node.cni("ADD", f"c{number}", node.pod()).address for number in range(5)}
    until(lambda: routed_by_log(node) >= {f"{each}/32" for each in addresses}, "the log tells of every pod")
    said = [event for event in node.log if event["event"] in WRITES]
    until(lambda: known_endpoints(node) == 5, "a turn has taken all of them in")
    since = [event for event in node.log if event["event"] in WRITES][len(said) :]
    # The first pod of a host without a default route brings the route by which its gateway is answered for.
    assert [event for event in since if event.get("dst") != "169.254.1.1/32"] == [], "it wrote none of it again"
    assert workloads(node) == addresses


def routed_by_log(node: Host) -> set[str]:
    return {event["dst"] for event in node.log if event["event"] == "route.put"}


WRITES = ("route.put", "route.delete", "route.repaired", "netfilter.put", "sysctl.put")


def known_endpoints(node: Host) -> int:
    felixctl = AGENT.with_name("felixctl")
    words = [felixctl, "--socket", str(node.folder / "agent.sock"), "-o", "json", "endpoints"]
    rows = json.loads(command(*words))["endpoints"]
    return sum(each["state"] == "routed" for each in rows)


def test_a_borrowed_address_is_told_of_at_once_while_pods_come(node: Host) -> None:
    """Others have to know of it; of all other pods the loop hears when no more of them come."""
    (node.folder / "resources" / "n2.yaml").write_text(OF_ANOTHER)
    until(lambda: "10.65.7.0/26" in blocks(node), "it is known that the block is another node's")
    pods = [node.pod() for _ in range(60)]
    calls = [
        node.begin("ADD", f"c{number}", pod, arguments="IP=10.65.7.9" if number == BORROWER else "")
        for number, pod in enumerate(pods)
    ]
    assert {call.answer().status for call in calls} == {0}
    until(lambda: len(told(node)) == len(pods), "the log tells of each")
    since = max(told(node).values()) - told(node)[f"c{BORROWER}"]
    assert since > timedelta(milliseconds=20), "it was told of with the last of them"


BORROWER = 5

OF_ANOTHER = """
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: n2-block}
spec: {node: n2, cidr: 10.65.7.0/26, state: confirmed}
"""


def blocks(node: Host) -> set[str]:
    felixctl = AGENT.with_name("felixctl")
    found = json.loads(command(felixctl, "--socket", str(node.folder / "agent.sock"), "-o", "json", "blocks"))
    return {each["cidr"] for each in found["blocks"]}


def told(node: Host) -> dict[str, datetime]:
    """Return when the log told of each container's pod."""
    events = [event for event in node.log if event["event"] == "cni.added"]
    return {event["container"]: datetime.fromisoformat(event["timestamp"]) for event in events}


def test_an_address_that_somebody_else_routes_takes_a_turn_and_is_refused_in_words(node: Host) -> None:
    node.ip("route", "add", "10.65.0.44/32", "via", "172.31.1.99", "proto", "static")
    answer = node.cni("ADD", "c1", node.pod(), arguments="IP=10.65.0.44")
    assert (answer.status, answer.code) == (1, 102)
    assert "a route of protocol static stands there" in answer.message
    until(lambda: not node.veths(), "the interface is gone")
    assert "via 172.31.1.99" in node.ip("route", "show", "10.65.0.44"), "theirs stays"


def test_pods_that_go_before_any_turn_leave_nothing(node: Host) -> None:
    for number in range(6):
        assert node.cni("ADD", f"c{number}", node.pod()).status == 0
        assert node.cni("DEL", f"c{number}").status == 0
    until(lambda: not node.veths() and not workloads(node), "nothing is left")
    until(lambda: known_endpoints(node) == 0, "a turn knows of none of them")  # the kernel is faster than the next one


BY_HAND_ONLY = """
---
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata: {name: default}
spec: {autoAllocateBlocks: false}
"""


def without_block(*more: str) -> str:
    return "---".join(each for each in RESOURCES.split("---") if "BlockAffinity" not in each) + "".join(more)


def test_a_node_without_a_block_that_may_claim_none_asks_for_patience_and_says_what_to_add(node: Host) -> None:
    (node.folder / "resources" / "node.yaml").write_text(without_block(BY_HAND_ONLY))
    until(lambda: node.cni("STATUS", version="1.1.0").status == 1, "the agent has read the folder")
    answer = node.cni("ADD", "c1", node.pod())
    assert (answer.code, answer.message) == (
        11,
        "node n1 may claim no block (autoAllocateBlocks is false); add a BlockAffinity for it",
    )


def test_a_node_without_a_block_claims_one_when_its_first_pod_asks(node: Host) -> None:
    (node.folder / "resources" / "node.yaml").write_text(without_block())
    until(lambda: not blackholes(node), "the block by hand is gone")
    address = ip_address(node.cni("ADD", "c1", node.pod()).address)
    (block,) = until(lambda: blackholes(node), "what is sent to unused addresses of the block is dropped")
    assert address in ip_network(block)
    node.stop(signal.SIGKILL)
    node.start()
    assert blackholes(node) == {block}, "the block is still its own"
    second = ip_address(node.cni("ADD", "c2", node.pod()).address)
    assert second in ip_network(block)
    assert second != address


def blackholes(node: Host) -> set[str]:
    return {each["dst"] for each in json.loads(node.ip("-j", "route", "show", "type", "blackhole"))}
