"""The help of felixctl: examples that can be typed, and words completed in a real bash."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from felix_py.ctl import completion, main
from felix_py.ctl.examples import EXAMPLES

PARSER = main._parser()
NOWHERE = Path("/nowhere/agent.sock")


def examples() -> Iterator[list[str]]:
    for text in EXAMPLES.values():
        for line in text.splitlines():
            if line.startswith("  felixctl "):
                yield shlex.split(line.strip().split("   ")[0])[1:]


def commands(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path, parser
    for name, child in completion._commands(parser).items():
        yield from commands(child, f"{path} {name}")


@pytest.mark.parametrize("words", list(examples()), ids=" ".join)
def test_an_example_can_be_typed(words: list[str]) -> None:
    options = PARSER.parse_args(words, argparse.Namespace(output="table", node=None, lab=None, socket=None))
    assert callable(options.run)


def test_every_command_has_examples() -> None:
    assert {name for name in completion._commands(PARSER) if name != "complete"} == {
        name.split()[1] for name in EXAMPLES if name.count(" ") == 1
    }


def test_help_shows_the_examples_and_no_hidden_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "felixctl routes 10.65.2.0/26 --why     why is this route here" in shown
    assert "\n    complete " not in shown


@pytest.mark.parametrize(
    ("before", "last", "words"),
    [
        pytest.param((), "tr", ["trace"], id="a command"),
        pytest.param(
            (), "", sorted(name for name in completion._commands(PARSER) if name != "complete"), id="commands"
        ),
        pytest.param(("bgp",), "dr", ["drain"], id="a command of a command"),
        pytest.param(("-o", "json", "routes"), "--w", ["--watch", "--why"], id="options, after others with values"),
        pytest.param(("routes", "-o"), "", ["json", "table", "wide", "yaml"], id="values of an option"),
        pytest.param(("completion",), "", ["bash", "fish", "zsh"], id="values of an argument"),
        pytest.param(("--socket",), "/ru", [], id="a value that nobody knows"),
        pytest.param(("bgp", "peer"), "", [], id="no agent, no names"),
    ],
)
def test_words_are_completed(before: tuple[str, ...], last: str, words: list[str]) -> None:
    assert completion.candidates(PARSER, before, last, NOWHERE) == words


def test_bash_completes_with_the_script() -> None:
    typed = "COMP_WORDS=(felixctl bgp dr); COMP_CWORD=2; _felixctl"
    script = f'source <(felixctl completion bash); {typed}; echo "${{COMPREPLY[@]}}"'
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("drain\n", "")


@pytest.mark.parametrize(
    ("line", "module"),
    [
        pytest.param("routes 10.65.0.0/26 --why", "routes", id="a command"),
        pytest.param("--node status -o json blocks", "pools", id="behind options whose values look like commands"),
        pytest.param("--socket=/run/x bgp peers", "bgp", id="an option with its value in one word"),
        pytest.param("--help", None, id="help lists all commands"),
        pytest.param("-o wide --help routes", None, id="help before a command"),
        pytest.param("rotues", None, id="an unknown command is answered with all that are known"),
        pytest.param("complete -- bgp", None, id="completion knows all of them"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_only_the_module_of_the_command_is_imported(line: str, module: str | None) -> None:
    assert main._module_of(line.split()) == module


def test_every_command_is_found_in_the_module_that_is_imported_for_it() -> None:
    (all_of,) = (action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))
    for command in all_of:
        only = main._module_of([command])
        (choices,) = (
            action.choices for action in main._parser(only)._actions if isinstance(action, argparse._SubParsersAction)
        )
        assert command in choices
