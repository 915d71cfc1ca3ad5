"""How the pages of deploy/lab/scenarios are read, and what of a command's output counts as the same."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import scenario_documents
from scenario_documents import DOCUMENTS, FOLDER, Answer, Step, missing, play, same, steps

PAGE = """
# A page

```
a1$ show
one  2s
...
two
lab$ kill tor
```

    indented$ is not a session

```
a1-pod1$ ping -c 1
```
"""


def test_a_page_is_read_as_steps() -> None:
    assert [*steps(PAGE)] == [
        Step("a1", "show", ("one  2s", "two"), 5),
        Step("lab", "kill tor", (), 9),
        Step("a1-pod1", "ping -c 1", (), 15),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("UPTIME 44s  x", "UPTIME 1m3s x", id="ages"),
        pytest.param("3 received, time 415ms", "3 received, time 9ms", id="the time of a ping"),
        pytest.param("node-a1 up 19:11:14.806 ok", "node-a1 up 09:00:00.001 ok", id="times of the day"),
        pytest.param("dev cali98b7d72d3ca scope", "dev cali0123456789a scope", id="interfaces of pods"),
        pytest.param("rtt 0.166 ms", "rtt 12.5 ms", id="decimal numbers"),
        pytest.param("lladdr b2:46:19:f1:94:f0", "lladdr 00:11:22:33:44:55", id="MAC addresses"),
    ],
)
def test_what_differs_from_run_to_run_is_the_same(one: str, other: str) -> None:
    assert same(one) == same(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("via 172.31.1.12 dev eth0", "via 172.31.1.11 dev eth0", id="addresses"),
        pytest.param("10.65.0.0/26", "10.65.0.0/27", id="prefixes"),
        pytest.param("3 received, 0% packet loss", "2 received, 33% packet loss", id="losses"),
        pytest.param("AS 64500", "AS 64501", id="AS numbers"),
        pytest.param("Established", "Active", id="states"),
    ],
)
def test_what_matters_is_not(one: str, other: str) -> None:
    assert same(one) != same(other)


def test_lines_must_be_printed_in_their_order() -> None:
    assert missing(("b", "d"), "a\nb\nc\nd\n") is None
    assert missing(("d", "b"), "a\nb\nc\nd\n") == "b"
    assert missing(("e",), "a\n") == "e"
    assert missing(("1 … 3",), "1 2 3\n") is None
    assert missing(("1 … 3",), "1 2 4\n") == "1 … 3"
    assert missing(("(a.c) …",), "(abc) d\n") == "(a.c) …"


def test_a_page_that_says_something_else_fails_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario_documents, "DEADLINE", 0.0)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(AssertionError, match=re.escape("page.md:5: a1$ show\ndid not print: two\nbut:\none 3s")):
        play(page, lambda _where, _command: Answer(0, "one 3s\n"))


def test_a_command_that_prints_nothing_has_to_succeed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\na1$ false\n```\n")
    with pytest.raises(AssertionError, match="ended with status 1"):
        play(page, lambda _where, _command: Answer(1, ""))


def test_a_command_is_repeated_until_it_prints_what_the_page_says(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\na1$ show\nready\n```\n")
    answers: Iterator[str] = iter(["not yet", "ready"])
    play(page, lambda _where, _command: Answer(0, next(answers)))
    assert [*answers] == []


def test_there_are_ten_pages_and_the_first_lists_them() -> None:
    listed = re.findall(r"\]\((\d\d-[a-z-]+\.md)\)", (FOLDER / "README.md").read_text())
    assert listed == [page.name for page in DOCUMENTS]
    assert len(listed) == 10


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.stem)
def test_every_page_holds_commands_to_what_they_print(page: Path) -> None:
    found = [*steps(page.read_text())]
    assert sum(bool(step.expected) for step in found) >= 2
    assert {step.where for step in found} <= {
        "lab", "tor", "spine", "client", "a1", "a2", "b1", "b2", "a1-pod1", "a2-pod1", "b1-pod1",
    }  # fmt: skip
