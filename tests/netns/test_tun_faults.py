"""A node whose tunnel is carried by a process: what happens to that process heals, and it bears rubbish."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lab_node import NAME, on_a1, settled
from labs import eventually, standing
from test_agent_programs import rubbish

from felix_py.lab import machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("healthy_afterwards")]

TWO_RACKS = Path(__file__).parents[2] / "deploy/lab/two-racks.yaml"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Bring the default lab up with the tun driver on every node."""
    document = yaml.safe_load(TWO_RACKS.read_text())
    document["agent"] = {**document.get("agent", {}), "tunnelDriver": "tun"}
    topology = tmp_path_factory.mktemp("tun") / "topology.yaml"
    topology.write_text(yaml.safe_dump(document))
    with standing(NAME, "--topology", str(topology)) as lab:
        yield lab


def test_a_tunnel_whose_process_is_killed_heals_by_itself(lab: Lab) -> None:
    process = machines.daemon(lab.of_node("a1"))
    on_a1("sh", "-c", "pkill -9 --ns $$ --nslist net felix-ipip")
    assert eventually(settled, 10)
    assert machines.daemon(lab.of_node("a1")) == process, "the agent healed it, and was not restarted for it"


@pytest.mark.parametrize("data", [b"\x00\xff" * 5000 + b"\n", b"{}\n", b""], ids=["binary", "empty object", "nothing"])
def test_rubbish_on_the_tunnels_socket_does_no_harm(lab: Lab, data: bytes) -> None:
    process = machines.daemon(lab.of_node("a1"))
    rubbish(lab.of_node("a1") / "run" / "ipip.sock", data)
    assert settled()
    assert machines.daemon(lab.of_node("a1")) == process
