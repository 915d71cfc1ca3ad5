"""`--watch` against a real socket, as a process of its own: changes, Ctrl-C, closed pipes, agents that go and come."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_api import until_open

from felix_py.api import Answer, Api
from felix_py.ctl.main import main
from felix_py.maintenance import Maintenance, shown
from felix_py.news import News

pytestmark = pytest.mark.slow

PATIENCE = 15.0


class Sessions:
    """What an agent would answer about its peers; `change` is news."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received = 1
        self.asked = asyncio.Event()
        self._news = News()

    async def peers(self, parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        self.asked.set()
        if parts != ("peers",):
            return 404, {"error": f"no session with {parts[1]} is configured; configured are none"}
        return 200, {"problem": None, "off": None, "maintenance": shown(Maintenance()), "peers": [self.row()]}

    def row(self) -> dict[str, Any]:
        facts = {"address": "172.31.1.1", "name": "tor", "asNumber": 64500, "type": "node", "state": "Established"}
        counts = {"received": self.received, "accepted": 1, "rejected": 0, "advertised": 1, "stale": 0, "flaps": 0}
        return {**facts, **counts, "since": None, "family": "ipv4 unicast", "remoteRouterID": None, "lastError": None}

    def change(self) -> None:
        self.received += 1
        self._news.ring()

    def serving(self) -> asyncio.Task[None]:
        return asyncio.create_task(Api(self.path, {"bgp": self._news.waiting(self.peers)}).serve())


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def felixctl(path: Path, *words: str, **files: Any) -> asyncio.subprocess.Process:
    """Start felixctl; Ctrl-C reaches it, whatever the shell does to background jobs."""
    command = (sys.executable, "-m", "felix_py.ctl.main", "--socket", str(path), "bgp", *words)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **files}
    return await asyncio.create_subprocess_exec(*command, **pipes)


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(PATIENCE):
        return (await stream.readline()).decode()


async def status(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


def against(path: Path, scenario: Callable[[Sessions, asyncio.Task[None]], Awaitable[None]]) -> None:
    async def whole() -> None:
        sessions = Sessions(path)
        server = sessions.serving()
        await asyncio.to_thread(until_open, path)
        try:
            await scenario(sessions, server)
        finally:
            await ended(server)

    asyncio.run(whole())


def received(text: str) -> int:
    count: int = json.loads(text)["peers"][0]["received"]
    return count


def test_a_change_is_one_more_line_of_json_and_ctrl_c_ends_it_well(tmp_path: Path) -> None:
    async def scenario(sessions: Sessions, _: asyncio.Task[None]) -> None:
        process = await felixctl(tmp_path / "s", "peers", "--watch", "-o", "json")
        first = await line(process.stdout)
        assert "revision" not in first
        sessions.change()
        assert [received(first), received(await line(process.stdout))] == [1, 2]
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")

    against(tmp_path / "s", scenario)


def test_what_has_not_changed_is_not_said_again(tmp_path: Path) -> None:
    async def scenario(sessions: Sessions, _: asyncio.Task[None]) -> None:
        process = await felixctl(tmp_path / "s", "peers", "--watch", "-o", "json")
        assert received(await line(process.stdout)) == 1
        for _ in range(3):  # answers that only say that time has passed
            sessions.asked.clear()
            async with asyncio.timeout(PATIENCE):
                await sessions.asked.wait()
        sessions.change()
        assert received(await line(process.stdout)) == 2
        process.kill()
        await process.wait()

    against(tmp_path / "s", scenario)


def test_tables_follow_each_other_in_a_pipe(tmp_path: Path) -> None:
    async def scenario(sessions: Sessions, _: asyncio.Task[None]) -> None:
        process = await felixctl(tmp_path / "s", "peers", "--watch")
        assert (await line(process.stdout)).startswith("PEER ")
        assert "172.31.1.1" in await line(process.stdout)
        sessions.change()
        assert await line(process.stdout) == "\n"
        assert (await line(process.stdout)).startswith("PEER ")
        process.kill()
        await process.wait()

    against(tmp_path / "s", scenario)


def test_it_ends_when_nobody_reads_it_any_more_although_nothing_changes(tmp_path: Path) -> None:
    async def scenario(_: Sessions, __: asyncio.Task[None]) -> None:
        reader, writer = os.pipe()
        process = await felixctl(tmp_path / "s", "peers", "--watch", "-o", "json", stdout=writer)
        os.close(writer)
        assert await asyncio.to_thread(os.read, reader, 1)
        os.close(reader)
        assert await status(process) == 0
        assert process.stderr is not None
        assert await process.stderr.read() == b""

    against(tmp_path / "s", scenario)


def test_an_agent_that_goes_away_and_returns_is_said_and_waited_for(tmp_path: Path) -> None:
    async def scenario(sessions: Sessions, server: asyncio.Task[None]) -> None:
        process = await felixctl(tmp_path / "s", "peers", "--watch", "-o", "json")
        assert received(await line(process.stdout)) == 1
        await ended(server)
        assert (await line(process.stderr)).startswith("felixctl: the agent has gone away, and is waited for: ")
        sessions.received = 7
        again = sessions.serving()
        assert await line(process.stderr) == "felixctl: the agent is back\n"
        assert received(await line(process.stdout)) == 7
        await ended(again)
        await line(process.stderr)
        process.send_signal(signal.SIGINT)
        assert await status(process) == 2, "no agent answers"

    against(tmp_path / "s", scenario)


def test_an_agent_that_does_not_return_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("felix_py.ctl.watching.AWAY", 0.0)

    async def scenario(sessions: Sessions, server: asyncio.Task[None]) -> None:
        arguments = ["--socket", str(tmp_path / "s"), "bgp", "peers", "--watch"]
        watching = asyncio.create_task(asyncio.to_thread(main, arguments))
        await sessions.asked.wait()
        await ended(server)
        assert await watching == 2

    against(tmp_path / "s", scenario)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        pytest.param(
            ("peer", "172.31.9.9", "--watch"), 1, "no session with 172.31.9.9 is configured", id="an unknown peer"
        ),
        pytest.param(("routes", "--pre-policy", "--best"), 2, "--pre-policy is about what peers sent", id="both"),
    ],
)
def test_questions_that_lead_nowhere_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str
) -> None:
    async def scenario(_: Sessions, __: asyncio.Task[None]) -> None:
        assert await asyncio.to_thread(main, ["--socket", str(tmp_path / "s"), "bgp", *words]) == code

    against(tmp_path / "s", scenario)
    said = capsys.readouterr().err
    assert said.startswith(f"felixctl: {sentence}")
    assert said.count("\n") == 1


def test_no_agent_at_all_is_exit_2_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", str(tmp_path / "s"), "bgp", "peers", "--watch"]) == 2
    assert "no agent runs here" in capsys.readouterr().err


@pytest.mark.parametrize("query", [{"after": "x", "wait": "1"}, {"wait": "-1"}, {"wait": "6"}, {"wait": "nan"}])
def test_a_wait_that_makes_no_sense_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    sessions = Sessions(tmp_path / "s")
    code, answer = asyncio.run(_ask(sessions, query))
    assert code == 400
    assert "wait" in answer["error"]


async def _ask(sessions: Sessions, query: dict[str, str]) -> tuple[int, Any]:
    code, answer = await sessions._news.waiting(sessions.peers)(("peers",), query)
    return code, answer
