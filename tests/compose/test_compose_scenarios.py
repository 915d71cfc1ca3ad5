"""The pages of deploy/lab/scenarios, played in the lab of containers."""

from pathlib import Path

import pytest
import scenario_documents
from compose_lab import Compose, eventually

pytestmark = pytest.mark.compose


@pytest.mark.parametrize("page", scenario_documents.DOCUMENTS, ids=lambda page: page.stem)
def test_a_page_tells_the_truth_and_leaves_the_lab_as_it_was(lab: Compose, page: Path) -> None:
    scenario_documents.play(page, scenario_documents.containers(lab.words))
    assert eventually(lambda: lab.matrix("a1", "a2", "b1", "b2", "client"), 60), lab.said()
