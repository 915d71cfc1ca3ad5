"""`--watch`: shows a document anew whenever it has changed, until Ctrl-C, across restarts of the agent."""

import argparse
import contextlib
import io
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from felix_py.ctl import client, output

Document = Mapping[str, Any]

WAIT = "1"
"""Seconds that the agent holds an answer back until there is news; ages on a screen are that old at most."""

REST = 0.2
"""Seconds between two pages at least: nobody reads faster, and a flood of changes costs the agent no more than this."""

AWAY = 60.0
"""Seconds for which an agent that has gone away is waited for; a restart takes one or two."""

KNOCK = 0.3
"""Seconds between two attempts to reach it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--watch", "-w", action="store_true", help="show it anew whenever it changes, until Ctrl-C")


@dataclass(frozen=True, slots=True)
class View:
    """How a document is shown to people.

    Attributes:
        show: prints it as a table.
        status: the exit status that it means.
        choose: leaves out what is not asked for, in every form.
    """

    show: Callable[[Document], None]
    status: Callable[[Document], int]
    choose: Callable[[Document], Document] = lambda document: document


def run(
    options: argparse.Namespace,
    parts: tuple[str, ...],
    query: Mapping[str, str | None],
    view: View,
) -> int:
    """Show what the agent answers, once or with --watch until it is ended; return the exit status.

    Args:
        options: of the command line.
        parts: of the question's path.
        query: what else is asked.
        view: how it is shown.

    Raises:
        Unreachable: when no agent answers, or none has come back for a while.
        NotFound, Refused: when the first question is answered so.
    """
    form = options.output if options.output in ("json", "yaml") else None
    if not options.watch:
        document = view.choose(_facts(client.get_meanwhile(options.path, parts, query, _until_answered)))
        if form is None:
            view.show(document)
        else:
            output.document(document, form)
        return view.status(document)
    watch = Watch(options, parts, query)
    page = _pages(view.show) if form is None else _lines(form)
    try:
        watch.follow(lambda document: page(view.choose(document)))
    except KeyboardInterrupt:
        return 2 if watch.away else 0


def _facts(document: Document) -> dict[str, Any]:
    """Leave out what only serves to ask again."""
    return {name: value for name, value in document.items() if name != "revision"}


class Watch:
    """Asks again and again; the agent answers when there is something new.

    Attributes:
        away: no agent answers at the moment.
    """

    def __init__(self, options: argparse.Namespace, parts: tuple[str, ...], query: Mapping[str, str | None]) -> None:
        self._path, self._parts, self._query = options.path, parts, dict(query)
        self._gone_at: float | None = None
        self._first = True
        self._said = ""

    @property
    def away(self) -> bool:
        """Whether the agent has gone away."""
        return self._gone_at is not None

    def follow(self, page: Callable[[Document], None]) -> NoReturn:
        """Hand every answer to `page`, for ever."""
        revision = None
        while True:
            document = self._answer(revision)
            if document is None:
                revision = None
                _rest(KNOCK)
                continue
            revision = str(document["revision"])
            page(_facts(document))
            self._first = False
            _rest(REST)

    def _answer(self, revision: str | None) -> dict[str, Any] | None:
        """Return the next answer; None while there is none to be had."""
        query = {**self._query, **({"after": revision, "wait": WAIT} if revision is not None else {})}
        try:
            document = client.get_meanwhile(self._path, self._parts, query, _until_answered)
        except client.Unreachable as problem:
            if self._first:
                raise
            self._wait_for_agent(problem)
            return None
        except client.NotFound as problem:
            if self._first:
                raise
            self._say(str(problem))
            return None
        if self.away:
            self._gone_at, self._said = None, ""
            print("felixctl: the agent is back", file=sys.stderr, flush=True)
        return document

    def _wait_for_agent(self, problem: client.Unreachable) -> None:
        now = time.monotonic()
        if self._gone_at is None:
            self._gone_at = now
            self._say(f"the agent has gone away, and is waited for: {problem}")
        elif now - self._gone_at > AWAY:
            raise client.Unreachable(
                f"the agent has gone away and not come back for {AWAY:.0f} s: {problem}"
            ) from problem

    def _say(self, sentence: str) -> None:
        """Say something beside the pages, once."""
        if sentence != self._said:
            print(f"felixctl: {sentence}", file=sys.stderr, flush=True)
        self._said = sentence


# --- what a page is


class _Page(io.StringIO):
    """A page that is coloured as standard output would be."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def _pages(show: Callable[[Document], None]) -> Callable[[Document], None]:
    """Return what prints tables: over one another on a terminal, and elsewhere one after the other as facts change."""
    terminal = sys.stdout.isatty()
    last: list[object] = [None]

    def page(document: Document) -> None:
        text = _Page(terminal=terminal)
        with contextlib.redirect_stdout(text):
            show(document)
        news = text.getvalue() if terminal else document
        if news == last[0]:
            return
        if terminal:
            # ECMA-48: home, each line to its end, and whatever was below.
            print("\x1b[H" + text.getvalue().replace("\n", "\x1b[K\n") + "\x1b[J", end="", flush=True)
        else:
            print(("" if last[0] is None else "\n") + text.getvalue(), end="", flush=True)
        last[0] = news

    if terminal:
        print("\x1b[2J", end="")
    return page


def _lines(form: str) -> Callable[[Document], None]:
    """Return what prints a document a line, or a YAML document, whenever facts have changed."""
    last: list[object] = [None]

    def page(document: Document) -> None:
        if document == last[0]:
            return
        last[0] = document
        if form == "json":
            print(json.dumps(document), flush=True)
            return
        print("---")
        output.document(document, form)
        print(end="", flush=True)

    return page


# --- waiting, and seeing that the reader has gone


def _until_answered(answer: socket.socket) -> None:
    """Wait for the agent's answer.

    Raises:
        BrokenPipeError: when nobody reads what we print any more.
    """
    _wait(answer.fileno(), client.DEADLINE)


def _rest(seconds: float) -> None:
    """Let time pass.

    Raises:
        BrokenPipeError: when nobody reads what we print any more.
    """
    _wait(None, seconds)


def _wait(answer: int | None, seconds: float) -> None:
    poller = select.poll()
    if answer is not None:
        poller.register(answer, select.POLLIN)
    with contextlib.suppress(io.UnsupportedOperation):  # a test reads along, and is no file
        poller.register(sys.stdout.fileno(), 0)
    for descriptor, event in poller.poll(1000 * seconds):
        if descriptor != answer and event & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
