"""Kernel parameters below /proc/sys, read and written; a parameter of an interface that is gone is no error."""

from collections.abc import Iterable
from pathlib import Path

from felix_py.kernel import roundtrip
from felix_py.kernel.objects import KernelRefused

ROOT = Path("/proc/sys")


def read(paths: Iterable[str]) -> dict[str, str]:
    """Return the value of each parameter that exists."""
    found = {}
    for path in paths:
        try:
            with open(f"{ROOT}/{path}", "rb", buffering=0) as file:  # noqa: PTH123 - thousands where pods are many
                found[path] = file.read().decode().strip()
        except FileNotFoundError:
            continue
    return found


def write(path: str, value: str) -> None:
    """Set one parameter.

    Raises:
        KernelRefused: where the kernel does not allow it, naming the parameter and the value.
    """
    try:
        roundtrip.write(f"{ROOT}/{path}", value)
    except FileNotFoundError:
        return  # the interface went away between reading and writing; its absence is reported with its route
    except OSError as error:
        raise refused(path, value, error) from error


def refused(path: str, value: str, error: OSError) -> KernelRefused:
    """Return what to raise where a parameter could not be set."""
    return KernelRefused(f"{path} cannot be set to {value}: {error.strerror}; run as root with /proc/sys writable")
