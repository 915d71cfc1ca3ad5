"""The files of blocks in a folder, for tests that look into them or damage them."""

import json
from pathlib import Path
from typing import Any

from felix_py.datastore import copies


def newest(file: Path) -> Path:
    """Return the copy of a block's file that stands; the file itself where none does."""
    number = copies.read(str(file)).newest
    return Path(copies.paths(str(file))[number or 0])


def standing(folder: Path) -> list[Path]:
    """Return the copy that stands of each block below the folder of the datastore."""
    blocks = folder / "ipam" / "blocks"
    files = {*blocks.glob("*.json"), *(each.with_suffix("") for each in blocks.glob(f"*.json{copies.TWIN}"))}
    return sorted(map(newest, files))


def specs(folder: Path) -> list[dict[str, Any]]:
    """Return what each block says."""
    return [json.loads(each.read_text())["spec"] for each in standing(folder)]
