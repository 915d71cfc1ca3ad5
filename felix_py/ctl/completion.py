"""`felixctl completion SHELL`: what a shell runs to complete commands, options and the names that the agent knows."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from felix_py.ctl import client
from felix_py.kernel import flow

SCRIPTS = {
    "bash": """\
# felixctl: completion for bash; `source <(felixctl completion bash)` in ~/.bashrc
_felixctl() {
    local IFS=$'\\n'
    COMPREPLY=($(felixctl complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _felixctl felixctl
""",
    "zsh": """\
#compdef felixctl
# felixctl: completion for zsh; `source <(felixctl completion zsh)` in ~/.zshrc, after compinit
_felixctl() {
    local -a found
    found=("${(@f)$(felixctl complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    (( ${#found[1]} )) && compadd -a found
}
compdef _felixctl felixctl
""",
    "fish": """\
# felixctl: completion for fish; `felixctl completion fish > ~/.config/fish/completions/felixctl.fish`
complete -c felixctl -f -a '(felixctl complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
""",
}
"""By shell. The words are found by felixctl itself, so that no script is ever behind its commands."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command, and the one that its scripts call, which no list of commands shows."""
    text = "print what a shell needs to complete felixctl's commands, options, peers, prefixes and pods"
    parser = commands.add_parser("completion", help=text, description=text)
    parser.add_argument("shell", choices=tuple(SCRIPTS))
    parser.set_defaults(run=run)
    hidden = commands.add_parser("complete", description="the words that may stand in the place of the last one")
    hidden.add_argument("words", nargs="*")
    hidden.set_defaults(run=complete)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    print(SCRIPTS[options.shell], end="")
    return 0


def complete(options: argparse.Namespace) -> int:
    """Print the words that may stand in the place of the last one, one a line."""
    *before, last = options.words or [""]
    for word in candidates(options.parser, before, last, options.path):
        print(word)
    return 0


# --- names that the agent knows


def _peers(path: Path) -> Iterator[str]:
    yield from (row["address"] for row in client.get(path, "bgp", "peers")["peers"])


def _prefixes(path: Path) -> Iterator[str]:
    yield from (row["prefix"] for row in client.get(path, "routes")["routes"])


def _ends(path: Path) -> Iterator[str]:
    document = client.get(path, "nodes")
    yield from (row["name"] for row in document["nodes"])
    for row in document["pods"]:
        yield from (row["name"], row["name"].rpartition("/")[2])


def _kinds(_: Path) -> Iterator[str]:
    from felix_py import resources  # noqa: PLC0415 - what resources are, which no other completion needs to know

    yield from map(str.lower, resources.KINDS)


NAMES: Mapping[str, Callable[[Path], Iterable[str]]] = {
    "address": _peers,
    "received": _peers,
    "advertised": _peers,
    "prefix": _prefixes,
    "ends": _ends,
    "kind": _kinds,
    "proto": lambda _: flow.NAMES,
}
"""By argument: who knows what may stand there."""


def candidates(parser: argparse.ArgumentParser, before: Sequence[str], last: str, path: Path) -> list[str]:
    """Return the words that may stand in the place of the last one.

    Args:
        parser: of the whole program.
        before: the words before it, without the program.
        last: what there is of it already.
        path: the agent's socket; names are missing where none answers.
    """
    waiting: argparse.Action | None = None
    for word in before:
        waiting = None if waiting is not None else _option(parser, word)
        commands = _commands(parser)
        if waiting is None and word in commands:
            parser = commands[word]
    if waiting is None and last.startswith("-"):
        found: Iterable[str] = parser._option_string_actions  # noqa: SLF001 - argparse tells its options nowhere else
    elif waiting is not None:
        found = _values(waiting, path)
    else:
        commands = _commands(parser)
        positional = (each for each in parser._actions if not each.option_strings and not _is_commands(each))  # noqa: SLF001
        found = [word for word in commands if word != "complete"] or [
            word for action in positional for word in _values(action, path)
        ]
    # Shells cut words at colons: addresses of IPv6 would be completed wrongly.
    return sorted({word for word in found if word.startswith(last) and ":" not in word})


def _option(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """Return the option that waits for a value after this word; None where none does."""
    action = parser._option_string_actions.get(word)  # noqa: SLF001 - as above
    return action if action is not None and action.nargs != 0 else None


def _is_commands(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - as above


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if _is_commands(action) and action.choices is not None:
            return dict(action.choices)
    return {}


def _values(action: argparse.Action, path: Path) -> list[str]:
    if action.choices is not None:
        return [str(each) for each in action.choices]
    try:
        return list(NAMES[action.dest](path)) if action.dest in NAMES else []
    except (client.Unreachable, client.NotFound):
        return []  # no agent, no names: commands and options are completed all the same
