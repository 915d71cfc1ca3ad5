"""An engine, the images, and the lab in containers: for each file of tests one of its own."""

from collections.abc import Iterator

import pytest
from compose_lab import ROOT, Compose, engine, shell, standing


@pytest.fixture(scope="session", autouse=True)
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with engine(tmp_path_factory.mktemp("engine") / "log"):
        yield


@pytest.fixture(scope="session")
def images(_engine: None) -> None:
    """Have the images built of this checkout; what was built before is not built again."""
    built = shell(["make", "-C", str(ROOT), "image"], 900.0)
    assert built.status == 0, built.out


@pytest.fixture(scope="module")
def lab(images: None) -> Iterator[Compose]:  # noqa: ARG001 - built before
    with standing() as made:
        yield made
