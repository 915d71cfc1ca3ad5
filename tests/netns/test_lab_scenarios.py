"""The pages of deploy/lab/scenarios, played in the lab of network namespaces."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import scenario_documents
from labs import eventually, felix_lab, lab_name, standing

from felix_py.lab import health
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.frr]

NAME = lab_name("scenario")
TOPOLOGY = scenario_documents.FOLDER.parent / "two-racks-spine.yaml"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(NAME, "--topology", str(TOPOLOGY)) as made:
        yield made


@pytest.mark.parametrize("page", scenario_documents.DOCUMENTS, ids=lambda page: page.stem)
def test_a_page_tells_the_truth_and_leaves_the_lab_as_it_was(lab: Lab, page: Path) -> None:
    scenario_documents.play(page, scenario_documents.namespaces(NAME))
    assert eventually(lambda: health.not_converged(lab, lab.topology()) == [], 30), felix_lab(NAME, "status").out


@pytest.mark.usefixtures("lab")
def test_a_router_that_runs_frr_is_shown_and_killed_as_one() -> None:
    assert "spine   router  172.31.0.2 172.31.9.1" in felix_lab(NAME, "status").out
    assert "FRR process " in felix_lab(NAME, "status").out
    assert "killed FRR of spine, process " in felix_lab(NAME, "fail", "spine.bgp").out
    assert eventually(lambda: felix_lab(NAME, "status").status == 0, 30), felix_lab(NAME, "status").out
