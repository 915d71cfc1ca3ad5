"""The packages as Python reads them, for tests that look at all of the code; read once."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("felix_py", "bgp", "ipip")


@cache
def calls() -> tuple[tuple[Path, ast.Call], ...]:
    """Return every call in the code of the packages, and where it stands."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return tuple(
        (path, node) for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    )
