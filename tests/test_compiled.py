"""Libraries that were compiled are found; those that were not, or are of another version, are not there."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from felix_py import durable
from felix_py.cni import arrivals
from felix_py.compiled import loaded
from felix_py.kernel import roundtrip

LIBRARIES: list[tuple[Callable[[Path], object], Path]] = [
    (durable.Library, durable.LIBRARY),
    (roundtrip.Library, roundtrip.LIBRARY),
    (arrivals.Library, arrivals.LIBRARY),
]

each = pytest.mark.parametrize(("functions", "path"), LIBRARIES, ids=[path.name for _, path in LIBRARIES])


@each
def test_it_is_found(functions: Callable[[Path], object], path: Path) -> None:
    assert path.exists(), "`make setup` compiles it, and needs a C compiler"
    assert loaded(functions, path) is not None


@each
def test_where_there_is_none(functions: Callable[[Path], object], path: Path, tmp_path: Path) -> None:
    assert loaded(functions, tmp_path / path.name) is None


@each
def test_one_of_another_version(functions: Callable[[Path], object], path: Path, tmp_path: Path) -> None:
    source, library = tmp_path / "other.c", tmp_path / path.name
    source.write_text("int nothing_of_ours(void) { return 0; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    assert loaded(functions, library) is None
