"""`felixctl events` against a journal on a real socket: tables, ages, following, Ctrl-C, an agent that goes away."""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_api import until_open

from felix_py.api import Api
from felix_py.ctl import events
from felix_py.ctl.main import main
from felix_py.journal import Journal

NOON = 1_795_608_000.0
"""2026-11-25T12:00:00Z."""

DOWN = {"event": "bgp.session.down", "peer": "172.31.1.1", "name": "tor-1", "reason": "silence", "kept": 3}
PUT = {"event": "route.put", "dst": "10.65.1.0/26", "route": "via 172.31.1.12 dev eth0"}


def against(path: Path, journal: Journal, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work` while the journal is served on `path`."""

    async def scenario() -> Any:
        parts = [asyncio.create_task(Api(path, {"events": journal.events}).serve()), asyncio.create_task(journal.run())]
        await asyncio.to_thread(until_open, path)
        try:
            return await work()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    return asyncio.run(scenario())


def ctl(tmp_path: Path, journal: Journal, *arguments: str) -> int:
    status: int = against(
        tmp_path / "s",
        journal,
        lambda: asyncio.to_thread(main, ["--socket", str(tmp_path / "s"), "events", *arguments]),
    )
    return status


@pytest.fixture
def journal() -> Journal:
    """A session lost at noon, and a route a minute later."""
    times = iter((NOON, NOON + 60, NOON + 61, NOON + 61, NOON + 61))
    kept = Journal(None, lambda: next(times))
    kept.note(DOWN)
    kept.note(PUT)
    return kept


def test_the_table_is_oldest_first(tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl(tmp_path, journal) == 0
    assert capsys.readouterr().out.splitlines() == [
        "TIME                      EVENT             SUBJECT             WHAT                                 CAUSE",
        "2026-11-25T12:00:00.000Z  bgp.session.down  172.31.1.1 (tor-1)  session lost, 3 paths kept           silence",
        "2026-11-25T12:01:00.000Z  route.put         10.65.1.0/26        installed: via 172.31.1.12 dev eth0  -",
    ]


def test_since_leaves_older_ones_out(tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl(tmp_path, journal, "--since", "30s", "-o", "json") == 0
    assert [event["event"] for event in json.loads(capsys.readouterr().out)["events"]] == ["route.put"]


def test_yaml_holds_the_same_facts(tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl(tmp_path, journal, "-o", "yaml") == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["last"] == 2
    assert document["events"][0]["cause"] == "silence"


def test_nothing_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl(tmp_path, Journal(None)) == 0
    assert ctl(tmp_path, Journal(None), "--since", "5m") == 0
    assert capsys.readouterr().out.splitlines() == [
        "nothing changed since the agent began its journal",
        "nothing changed in that time",
    ]


def test_what_a_peer_said_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(None)
    journal.note({**DOWN, "reason": "Cease: \x1b]0;owned\x07"})
    assert ctl(tmp_path, journal) == 0
    assert r"Cease: \x1b]0;owned\x07" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "value"), [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("0s", 0)])
def test_ages(text: str, value: int) -> None:
    assert events.seconds(text) == value


@pytest.mark.parametrize("text", ["5", "m", "-5m", "5 m", "1.5h", "5M", "", "\u0665m", "9999999999s"])
def test_a_bad_age_is_one_sentence_and_exit_2(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        events.seconds(text)
    with pytest.raises(SystemExit) as end:
        main(["events", f"--since={text}"])
    assert end.value.code == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.endswith(f"{text!r} is no age; give a number and a unit: 30s, 5m, 2h or 1d")


# --- following


async def following(path: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "felix_py.ctl.main", "--socket", str(path), "events", "--follow", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=hear_ctrl_c,  # whoever runs these tests in the background may have it ignored
    )  # fmt: skip


def hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(10):
        return (await process.stdout.readline()).decode().rstrip("\n")


@pytest.mark.slow
def test_following_shows_what_comes_and_ends_cleanly_with_ctrl_c(tmp_path: Path, journal: Journal) -> None:
    async def work() -> tuple[list[str], int, bytes]:
        process = await following(tmp_path / "s", "-o", "json")
        seen = [await line(process), await line(process)]
        journal.note({"event": "agent.in_sync", "resources": 9})
        seen.append(await line(process))
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        return [json.loads(each)["event"] for each in seen], process.returncode or 0, errors

    assert against(tmp_path / "s", journal, work) == (["bgp.session.down", "route.put", "agent.in_sync"], 0, b"")


@pytest.mark.slow
def test_following_keeps_its_columns(tmp_path: Path, journal: Journal) -> None:
    async def work() -> list[str]:
        process = await following(tmp_path / "s")
        seen = [await line(process) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        await process.communicate()
        return seen

    heads, *rows = against(tmp_path / "s", journal, work)
    assert [match.start() for match in re.finditer(r"\S+", heads)] == [0, 26, 44, 70, 112]
    assert [row[112:] for row in rows] == ["silence", "-"]


@pytest.mark.slow
def test_following_begins_with_the_last_ten(tmp_path: Path) -> None:
    journal = Journal(None)
    for number in range(12):
        journal.note({**PUT, "dst": f"10.65.{number}.0/26"})

    async def work() -> str:
        process = await following(tmp_path / "s", "-o", "json")
        first = json.loads(await line(process))["subject"]
        process.send_signal(signal.SIGINT)
        await process.communicate()
        return str(first)

    assert against(tmp_path / "s", journal, work) == "10.65.2.0/26"


@pytest.mark.slow
def test_an_agent_that_goes_away_is_said(tmp_path: Path, journal: Journal) -> None:
    async def scenario() -> tuple[int | None, str]:
        server = asyncio.create_task(Api(tmp_path / "s", {"events": journal.events}).serve())
        await asyncio.to_thread(until_open, tmp_path / "s")
        process = await following(tmp_path / "s", "-o", "json")
        await line(process)
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
        return process.returncode, errors.decode()

    status, sentence = asyncio.run(scenario())
    assert status == 2
    assert re.fullmatch(r"felixctl: the agent has gone away: .+\n", sentence)
