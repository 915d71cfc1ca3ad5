"""What survives: restarts, a full disk, a damaged file. No address is given twice, no living pod is forgotten."""

import shutil
import signal
from itertools import repeat, takewhile
from pathlib import Path

import pytest
from block_files import standing
from builders import with_blocks
from cni_lab import Host, host, in_pod, until

from felix_py.allocations import Allocations
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ledger import Attachment
from felix_py.model import NodeName

pytestmark = pytest.mark.netns

WEB = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"


def faults(node: Host) -> list[str]:
    return [event["fault"] for event in node.log if event["event"] == "datastore.fault"]


def fill(folder: Path) -> Path:
    """Write until the disk is full."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(repeat(bytes(512)))
    return ballast


def test_killing_the_agent_forgets_no_pod(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        first = node.cni("ADD", "c1", node.pod()).address
        node.stop(signal.SIGKILL)
        assert node.pings(first), "pods do not need the agent"
        node.start()
        second = node.cni("ADD", "c2", node.pod()).address
        assert (first, second) == ("10.65.0.0", "10.65.0.1")
        assert node.cni("ADD", "c1", node.pod()).code == 100
        assert [node.cni("DEL", name).status for name in ("c1", "c2")] == [0, 0]
        node.is_left_clean()


def test_a_pod_for_which_a_wrong_address_was_foreseen_gets_a_veth_with_the_right_one(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        assert node.cni("ADD", "c1", node.pod()).address == "10.65.0.0"
        other = Allocations(FolderSwaps(node.state), NodeName("n2"), living=lambda: ())
        cluster = with_blocks("n1", "10.65.0.0/26")
        other.addresses.own.cluster = lambda: cluster
        elsewhere = Attachment("c9", "eth0", "default/p9", "cali9")
        assert [str(each) for each in other.attach(elsewhere).addresses] == ["10.65.0.1"]
        pod = node.pod()
        assert node.cni("ADD", "c2", pod).address == "10.65.0.2"
        assert "10.65.0.2/32" in in_pod(pod, "ip", "address", "show", "eth0")
        assert "10.65.0.1" not in in_pod(pod, "ip", "address", "show", "eth0")
        assert node.pings("10.65.0.2")
        assert node.cni("CHECK", "c2", pod, config={"prevResult": {"cniVersion": "1.0.0", "ips": []}}).status == 0
        assert [node.cni("DEL", name).status for name in ("c1", "c2")] == [0, 0]
        assert node.held() == {"10.65.0.1"}


def test_a_pod_whose_interface_went_while_the_agent_was_away_holds_nothing_any_more(tmp_path: Path) -> None:
    with host(tmp_path, "10.65.0.0/32") as node:
        node.cni("ADD", "c1", node.pod())
        node.stop()
        (veth,) = node.veths()
        node.ip("link", "del", veth)
        node.start()
        assert node.cni("ADD", "c2", node.pod()).address == "10.65.0.0"
        assert node.cni("DEL", "c1").status == 0
        assert node.held() == {"10.65.0.0"}, "the late DEL of the old pod takes nothing from the new one"


def test_a_full_disk_is_one_sentence_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with host(tmp_path, disk_size="64k") as node:
        first = node.cni("ADD", "c1", node.pod()).address
        ballast = fill(node.disk)
        # There is room for as many as fit into what a block takes on the disk.
        names = [f"more{number}" for number in range(40)]
        answers = takewhile(lambda each: each.status == 0, (node.cni("ADD", each, node.pod()) for each in names))
        more = names[: len(list(answers))]
        assert 2 < len(more) < len(names)
        (file,) = standing(node.disk)
        before = file.read_text()
        answer = node.cni("ADD", "c2", node.pod())
        assert (answer.status, answer.code) == (1, 5)
        assert answer.message == (
            f"{node.state}/ipam/blocks/10-65-0-0-26.json cannot be written: No space left on device; "
            "free some space there; nothing was changed"
        )
        assert file.read_text() == before
        assert not [each.name for each in file.parent.iterdir() if each.suffix not in (".json", ".twin")]
        until(lambda: len(node.veths()) == 1 + len(more), "what was begun is gone")
        assert node.pings(first)
        assert node.cni("DEL", "c1").status == 0, "a full disk keeps nobody from going"
        assert first not in node.held()
        ballast.unlink()
        assert [node.cni("DEL", each).status for each in more] == [0] * len(more)
        node.is_left_clean()
        assert node.cni("ADD", "c2", node.pod()).address == f"10.65.0.{1 + len(more)}"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param('{"metadata": {"resourceVersion": "0123456789abcdef", "na', id="torn"),
        pytest.param("\0" * 100, id="zeros"),
        pytest.param("", id="empty"),
        pytest.param("[]", id="another shape"),
        pytest.param('{"metadata": {"resourceVersion": "0123456789abcdef"}, "kind": "IPAMBlock"}', id="no spec"),
    ],
)
def test_a_damaged_file_is_put_aside_and_living_pods_are_known_by_their_interfaces(tmp_path: Path, damage: str) -> None:
    with host(tmp_path) as node:
        pod = node.pod()
        first = node.cni("ADD", "c1", pod, arguments=WEB).address
        node.cni("ADD", "c2", node.pod())
        node.stop(signal.SIGKILL)
        (file,) = standing(node.disk)
        file.write_text(damage)
        node.start()
        (fault,) = faults(node)
        assert fault.startswith(f"{file} is damaged (")
        assert "; 2 pods were found again by their interfaces" in fault
        assert node.cni("ADD", "c1", pod, arguments=WEB).code == 100, "the agent knows that it made this one"
        assert node.cni("ADD", "c3", node.pod()).address == "10.65.0.2"
        (aside,) = file.parent.glob(f"{file.name}.damaged-*")
        assert aside.read_text() == damage
        assert node.pings(first)
        assert [node.cni("DEL", f"c{number}").status for number in (1, 2, 3)] == [0, 0, 0]
        node.is_left_clean()


def test_a_file_that_cannot_be_read_stops_the_agent_with_a_sentence(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        node.stop()
        (node.state / "ipam" / "blocks" / "10-65-0-0-26.json").mkdir(parents=True)
        with pytest.raises(AssertionError, match="without it addresses would be given twice"):
            node.start()


def test_a_lost_file_is_no_licence_to_give_addresses_twice(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        first = node.cni("ADD", "c1", node.pod()).address
        node.stop()
        shutil.rmtree(node.state / "ipam")
        node.start()
        assert node.cni("ADD", "c2", node.pod()).address != first
        assert node.pings(first)


def test_a_pod_without_note_is_still_deleted_by_whoever_added_it(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        node.cni("ADD", "c1", node.pod(), arguments=WEB)
        node.stop()
        shutil.rmtree(node.state / "ipam")
        node.ip("link", "set", "dev", *node.veths(), "alias", "")
        node.start()
        assert node.cni("ADD", "c2", node.pod()).address == "10.65.0.1"
        assert [node.cni("DEL", name, arguments=WEB if name == "c1" else "").status for name in ("c1", "c2")] == [0, 0]
        node.is_left_clean()


def test_pods_are_known_again_even_where_somebody_flushed_their_routes(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        node.cni("ADD", "c1", node.pod())
        node.stop()
        shutil.rmtree(node.state / "ipam")
        node.ip("route", "flush", "proto", "80")
        node.start()
        assert node.cni("ADD", "c2", node.pod()).address == "10.65.0.1"


def test_pods_of_somebody_else_keep_their_addresses(tmp_path: Path) -> None:
    with host(tmp_path) as node:
        node.stop()
        node.ip("link", "add", "cali0000000web0", "type", "veth", "peer", "name", "x0")
        node.ip("link", "set", "cali0000000web0", "up")
        node.ip("route", "add", "10.65.0.0/32", "dev", "cali0000000web0", "scope", "link")
        node.start()
        assert node.cni("ADD", "c1", node.pod()).address == "10.65.0.1"
