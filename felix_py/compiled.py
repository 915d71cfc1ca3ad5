"""Libraries of ours that are written in C; everything works without them, and takes longer."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Functions = TypeVar("Functions")


def loaded(functions: Callable[[Path], Functions], path: Path) -> Functions | None:
    """Return the functions of a library; None where it was not compiled, or lacks one, being of another version.

    Args:
        functions: finds them in the library at a path.
        path: of the library.
    """
    try:
        return functions(path)
    except (OSError, AttributeError):
        return None
