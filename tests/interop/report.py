"""Plays every scenario with every daemon and writes `docs/interop.md`, as root; `make interop` runs it."""

import datetime as dt
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "interop.md"
COLUMNS = {"bird": "BIRD", "frr": "FRR", "gobgp": "GoBGP"}

HEAD = """\
# Interoperability

Written by `make interop` on {date}: the real `felix-agent` with {versions}, each in a
network namespace of its own, on Linux {kernel}. {count} cells, played three at a time, in {seconds:.0f} s.

Each line is a function of `tests/interop/scenarios`; a letter marks a further part of a scenario. **yes** passed, with
figures where there are some; **not yet** waits for a feature of ours, and the suite turns red on the day it works;
**cannot** is a limit of the daemon, which the suite proves. Nodes of ours against each other are played by
`tests/interop/test_interop_ourselves.py`.

| | scenario | {columns} |
|---|---|{rule}
"""


@dataclass(slots=True)
class Cell:
    """What came of one scenario with one daemon.

    Attributes:
        verdict: yes, not yet, cannot, NO or not played.
        remarks: figures where it passed, the reason where it did not.
    """

    verdict: str
    remarks: list[str] = field(default_factory=list)


def main() -> int:
    """Write the page; return the exit status of the tests."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        # xunit1: the newer format has no room for what a test tells of itself.
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={results}"]
        command = [sys.executable, "-m", "pytest", *options, str(Path(__file__).with_name("test_interop_daemons.py"))]
        status = subprocess.run(command, check=False)
        suite = ET.parse(results).getroot()  # noqa: S314 - we have just had it written
    PAGE.write_text("".join(page(suite)))
    return status.returncode


def page(root: ET.Element) -> Iterator[str]:
    """Yield the page's parts."""
    cells: dict[tuple[str, str], dict[str, Cell]] = defaultdict(dict)
    versions: dict[str, str] = {}
    for case in root.iter("testcase"):
        found = _properties(case)
        if "kind" in found:
            kind = found["kind"][0]
            cells[found["number"][0], found["title"][0]][kind] = _cell(case, found)
            versions[kind] = found["version"][0]
    suite = next(root.iter("testsuite"))
    yield HEAD.format(
        date=dt.datetime.now(tz=dt.UTC).date(),
        versions=", ".join(versions[kind] for kind in COLUMNS if kind in versions),
        kernel=platform.release(),
        count=sum(map(len, cells.values())),
        seconds=float(suite.get("time", "0")),
        columns=" | ".join(COLUMNS.values()),
        rule="---|" * len(COLUMNS),
    )
    notes: dict[str, int] = {}
    for (number, title), row in sorted(cells.items(), key=lambda item: _order(item[0][0])):
        shown = (_shown(row.get(kind, Cell("not played")), notes) for kind in COLUMNS)
        yield f"| {number} | {title} | {' | '.join(shown)} |\n"
    yield "\n"
    yield from (f"{number}. {sentence[0].upper()}{sentence[1:]}.\n" for sentence, number in notes.items())


def _order(number: str) -> tuple[int, str]:
    digits = re.match(r"\d+", number)
    return (int(digits[0]) if digits else 0), number


def _properties(case: ET.Element) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for each in case.iter("property"):
        found[each.get("name", "")].append(each.get("value", ""))
    return found


def _cell(case: ET.Element, found: Mapping[str, list[str]]) -> Cell:
    skipped = case.find("skipped")
    if skipped is not None:
        verdict = "not yet" if skipped.get("type") == "pytest.xfail" else "not played"
        return Cell(verdict, [skipped.get("message", "")])
    if case.find("failure") is not None or case.find("error") is not None:
        return Cell("**NO**")
    if "cannot" in found:
        return Cell("cannot", found["cannot"])
    return Cell("yes", found.get("note", []))


def _shown(cell: Cell, notes: dict[str, int]) -> str:
    """Return what stands in the table: figures beside a yes, a footnote's number beside everything else."""
    if cell.verdict == "yes":
        return ", ".join(["yes", *cell.remarks])
    marks = (f"<sup>{notes.setdefault(each, len(notes) + 1)}</sup>" for each in cell.remarks if each)
    return cell.verdict + "".join(marks)


if __name__ == "__main__":
    sys.exit(main())
