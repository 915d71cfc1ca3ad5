"""Scenarios, deploy/lab/scenarios/*.md: their commands run in a lab, and its answers held to what they print.

A block of a document is a session: `a1$ COMMAND` runs on that machine or pod, and what follows is what it printed. What
differs from run to run (times, ages, processes, names of interfaces) is the same for us; `…` stands for the rest of a
word or line, and a line `...` for lines left out. What a document prints must be seen, in its order, within DEADLINE:
a network takes its time, and the commands that print something may be repeated.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 40.0
"""Seconds until what a document prints must be seen."""

PAUSE = 0.3
FOLDER = Path(__file__).parents[1] / "deploy" / "lab" / "scenarios"
DOCUMENTS = sorted(FOLDER.glob("[0-9]*.md"))

PROMPT = re.compile(r"([a-z][a-z0-9-]*)\$ (.+)")

SAME: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}"), "<mac>"),
    (re.compile(r"\bcali[0-9a-f…]+"), "cali*"),
    (re.compile(r"\bprocess \d+"), "process *"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "<clock>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(T<clock>Z?)?\b"), "<date>"),
    (re.compile(r"\b(\d+(\.\d+)?(ms|[wdhms]))+\b"), "<time>"),
    (re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])"), "<number>"),
    (re.compile(r"\btime \d+ms"), "time <time>"),
    (re.compile(r"\s+"), " "),
)
"""What differs from run to run, and what it is taken for."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a document.

    Attributes:
        where: a machine, a pod, or `lab` for what is done to the lab itself.
        expected: what the document prints below it.
        line: where it stands.
    """

    where: str
    command: str
    expected: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command gave."""

    status: int
    out: str


Runner = Callable[[str, str], Answer]
"""Runs a command of a shell at a place."""


def steps(text: str) -> Iterator[Step]:
    """Yield the commands of a document in their order."""
    inside, step, printed = False, None, []
    for number, line in enumerate(text.splitlines(), 1):
        fence, prompt = line.startswith("```"), PROMPT.fullmatch(line)
        if step is not None and (fence or (inside and prompt)):
            yield Step(step.where, step.command, tuple(printed), step.line)
            step = None
        if fence:
            inside = not inside
        elif inside and prompt:
            step, printed = Step(prompt[1], prompt[2], (), number), []
        elif inside and step is not None and line.strip() not in ("", "..."):
            printed.append(line)


def same(text: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, instead in SAME:
        text = pattern.sub(instead, text)
    return text.strip()


def missing(expected: tuple[str, ...], printed: str) -> str | None:
    """Return the first line of a document that was not printed after those before it; None where all were."""
    left = iter([same(line) for line in printed.splitlines()])
    for line in expected:
        pattern = re.compile(re.escape(same(line)).replace("…", ".*"))
        if not any(pattern.fullmatch(each) for each in left):
            return line
    return None


def play(document: Path, run: Runner) -> None:
    """Run a document's commands, and hold the answers to it.

    Raises:
        AssertionError: with the document's line and what was printed instead.
    """
    for step in steps(document.read_text()):
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = run(step.where, step.command)
            lacking = missing(step.expected, answer.out)
            if not step.expected:
                assert answer.status == 0, _failed(document, step, f"ended with status {answer.status}", answer)
            if lacking is None:
                break
            assert time.monotonic() < deadline, _failed(document, step, f"did not print: {lacking}", answer)
            time.sleep(PAUSE)


def _failed(document: Path, step: Step, what: str, answer: Answer) -> str:
    return f"{document.name}:{step.line}: {step.where}$ {step.command}\n{what}\nbut:\n{answer.out}"


def shell(words: list[str], seconds: float = 60.0) -> Answer:
    """Run a command, its two outputs as one."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )
    return Answer(done.returncode, done.stdout)


# --- the two labs

FAULTS = {"kill": "fail", "start": "heal"}
"""What a document says of a lab, and the word of felix-lab for it."""


def namespaces(name: str) -> Runner:
    """Return who runs commands in the lab of this name, out of network namespaces."""
    program = [sys.executable, "-m", "felix_py.lab.main", "--name", name]

    def run(where: str, command: str) -> Answer:
        if where == "lab":
            verb, *targets = command.split()
            return shell([*program, FAULTS.get(verb, verb), *targets])
        return shell([*program, "exec", where, "sh", "-c", command])

    return run


def containers(compose: list[str]) -> Runner:
    """Return who runs commands in the lab of containers; the argument is how `docker compose` is called."""

    def run(where: str, command: str) -> Answer:
        if where == "lab":
            return shell([*compose, *command.split()])
        node, hyphen, _ = where.partition("-pod")
        inside = ["felix-lab", "exec", where] if hyphen else []
        return shell([*compose, "exec", "-T", node, *inside, "sh", "-c", command])

    return run
