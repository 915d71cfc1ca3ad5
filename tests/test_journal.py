"""The journal: what is told of each event, what memory and disk keep of it, and what is answered."""

import ast
import asyncio
import json
import re
import resource
import stat
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import sources
from structlog.testing import capture_logs

from felix_py import log
from felix_py.journal import KEPT, Journal
from felix_py.journal_file import ROTATE_AT, document, parse
from felix_py.journal_words import NO_CHANGE, TABLE, Told, tell

ROOT = sources.ROOT
NOON = 1_795_608_000.0
"""2026-11-25T12:00:00Z."""


def numbers(journal: Journal, **asked: Any) -> list[int]:
    return [entry.number for entry in journal.entries(**asked)[0]]


def put(number: int) -> dict[str, object]:
    return {"event": "route.put", "dst": f"10.65.{number >> 8 & 255}.{number & 255}/32", "route": "dev cali0"}


# --- words


@pytest.mark.parametrize(
    ("event", "fields", "told"),
    [
        pytest.param(
            "route.put",
            {"dst": "10.65.1.0/26", "route": "via 172.31.1.12 dev eth0", "was": None},
            Told("10.65.1.0/26", "installed: via 172.31.1.12 dev eth0", ""),
            id="a field that is None takes its piece with it",
        ),
        pytest.param(
            "route.repaired",
            {"dst": "10.65.1.0/26", "route": "via 172.31.1.12", "was": "via 172.31.9.9", "cause": "route changed"},
            Told("10.65.1.0/26", "repaired: via 172.31.1.12, was via 172.31.9.9", "route changed"),
            id="repair",
        ),
        pytest.param(
            "bgp.session.down",
            {"peer": "172.31.1.1", "name": "tor-1", "reason": "hold timer expired", "kept": 3},
            Told("172.31.1.1 (tor-1)", "session lost, 3 paths kept", "hold timer expired"),
            id="session",
        ),
        pytest.param(
            "bgp.session.down",
            {"peer": "172.31.1.1", "reason": "x", "kept": 0},
            Told("172.31.1.1", "session lost, 0 paths kept", "x"),
            id="nought is said",
        ),
        pytest.param("cni.deleted", {"pod": "default/web"}, Told("default/web", "detached", "CNI DEL"), id="usually"),
        pytest.param(
            "cni.deleted", {"pod": "default/web", "cause": "GC"}, Told("default/web", "detached", "CNI GC"), id="GC"
        ),
        pytest.param(
            "link.changed",
            {"device": "eth0", "index": 2, "what": "carrier lost"},
            Told("eth0", "carrier lost", ""),
            id="link",
        ),
        pytest.param(
            "datastore.fault",
            {"fault": "pools.yaml: spec.{cidr}: is 'x'"},
            Told("resources", "refused", "pools.yaml: spec.{cidr}: is 'x'"),
            id="braces in a value are no template",
        ),
        pytest.param("kernel.resync", {"cause": "resync", "seconds": 0.1}, None, id="by the clock"),
        pytest.param(
            "kernel.resync",
            {"cause": "events lost", "seconds": 0.1},
            Told("kernel", "everything read back, in 0.1 s", "events lost"),
            id="asked for",
        ),
        pytest.param("conntrack.purged", {"address": "10.65.0.5", "entries": 0}, None, id="nothing forgotten"),
        pytest.param("api.rubbish", {"reason": "x"}, None, id="no change"),
        pytest.param("no.such", {}, None, id="unknown"),
    ],
)
def test_an_event_in_words(event: str, fields: dict[str, object], told: Told | None) -> None:
    assert tell(event, fields) == told


def test_every_event_has_words_or_tells_of_no_change() -> None:
    assert set(TABLE) | NO_CHANGE == log.EVENTS
    assert set(TABLE) & NO_CHANGE == set()


@pytest.mark.slow
def test_words_ask_for_fields_that_somebody_logs() -> None:
    """Every field that is logged with `**` may be any; of the others each must be given by at least one call."""
    given: dict[str, set[str | None]] = defaultdict(set)
    for _, call in sources.calls():
        for constant in ast.walk(call.args[0]) if call.args else ():
            if isinstance(constant, ast.Constant) and constant.value in TABLE:
                given[constant.value] |= {keyword.arg for keyword in call.keywords}
    optional = {"cause", "was", "hop", "repaired"}
    needless = {
        event: fields - given[event] - optional
        for event, row in TABLE.items()
        if given[event] and None not in given[event]
        for fields in [row.subject.fields | row.what.fields | row.cause.fields]
        if event != "agent.failed"  # its reason is the exception
    }
    assert {event: fields for event, fields in needless.items() if fields} == {}
    assert given["bgp.session.down"] == {"peer", "name", "reason", "kept"}


# --- memory


def test_entries_count_up_and_can_be_asked_for_by_number_and_age() -> None:
    clock = [NOON]
    journal = Journal(None, lambda: clock[0])
    for number in range(4):
        clock[0] = NOON + 60 * number
        journal.note(put(number))
    assert numbers(journal) == [1, 2, 3, 4]
    assert numbers(journal, after=2) == [3, 4]
    assert numbers(journal, since=NOON + 120) == [3, 4]
    assert journal.entries(after=4) == ((), 4)
    assert numbers(journal, after=99) == [1, 2, 3, 4]  # the follower of a journal that is lost


@pytest.mark.slow
def test_memory_holds_the_newest() -> None:
    journal = Journal(None)
    for number in range(KEPT + 5):
        journal.note(put(number))
    assert (len(numbers(journal)), numbers(journal)[0]) == (KEPT, 6)


def test_an_exception_is_the_cause_of_a_failure() -> None:
    journal = Journal(None)
    try:
        int("eth0")
    except ValueError:
        journal.note({"event": "agent.failed", "exc_info": True})
    assert journal.entries()[0][0].told == Told(
        "agent", "ended by a bug", "ValueError: invalid literal for int() with base 10: 'eth0'"
    )


# --- disk


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Journal(tmp_path / "state", lambda: NOON)
    first.note(put(1))
    first.note({"event": "agent.stopped", "node": "a1"})
    second = Journal(tmp_path / "state", lambda: NOON)
    assert second.entries() == first.entries()
    second.note(put(2))
    assert numbers(second) == [1, 2, 3]
    assert numbers(Journal(tmp_path / "state")) == [1, 2, 3]
    file = tmp_path / "state" / "journal.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert json.loads(file.read_text().splitlines()[0]) == {
        "id": 1,
        "time": "2026-11-25T12:00:00.000Z",
        "event": "route.put",
        "subject": "10.65.0.1/32",
        "what": "installed: dev cali0",
        "cause": "",
    }


def test_what_is_written_is_read_back_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: NOON + 0.125)
    journal.note({"event": "step.refused", "reason": 'a "quoted" \\ line\nand ünïcode \ud800'})
    (entry,), _ = journal.entries()
    assert parse(json.dumps(document(entry)).encode()) == entry


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param(b'{"id": 3, "time": "2026-11-25T12', id="half a line"),
        pytest.param(b"\x00" * 4096 + b"\n", id="zeroes, as a crash leaves them"),
        pytest.param(b"[]\n17\nnull\n\n", id="JSON of another kind"),
        pytest.param(
            b'{"id": true, "time": "2026-11-25T12:00:00Z", "event": "x", "subject": "", "what": "", "cause": ""}\n'
        ),
        pytest.param(
            b'{"id": 9, "time": "2026-11-25T12:00:00Z", "event": "x", "subject": 1, "what": "", "cause": ""}\n'
        ),
        pytest.param(b"[" * 100_000 + b"\n", id="deeper than the parser goes"),
    ],
)
def test_damaged_lines_are_skipped_and_later_ones_kept(tmp_path: Path, rubbish: bytes) -> None:
    Journal(tmp_path).note(put(1))
    Journal(tmp_path).note(put(2))
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(rubbish)
    after = Journal(tmp_path)
    assert numbers(after) == [1, 2]
    after.note(put(3))
    assert numbers(Journal(tmp_path)) == [1, 2, 3]


def test_a_full_file_is_rotated_and_both_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl.1").write_bytes(b"older, and to go\n")
    journal = Journal(tmp_path)
    journal.note(put(1))
    filler = b"x" * (ROTATE_AT - (tmp_path / "journal.jsonl").stat().st_size - 1) + b"\n"
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(filler)
    journal.note(put(2))
    assert (tmp_path / "journal.jsonl.1").stat().st_size == ROTATE_AT
    assert len((tmp_path / "journal.jsonl").read_bytes().splitlines()) == 1
    assert numbers(Journal(tmp_path)) == [1, 2]


@pytest.mark.slow
def test_what_cannot_be_written_is_said_once_kept_in_memory_and_written_later(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file where the directory should be")
    journal = Journal(state)
    done = subprocess.run(
        [sys.executable, "-c", REFUSED.format(directory=str(state))], capture_output=True, text=True, check=True
    )
    (said,) = (json.loads(line) for line in done.stderr.splitlines())
    assert said["event"] == "journal.refused"
    assert re.search(
        r"state/journal.jsonl cannot be written: .*: give it room, or another stateDirectory", said["reason"]
    )
    assert done.stdout.split() == ["1", "2", "3"]  # the refusal is a change as well
    journal.note(put(1))
    state.unlink()
    journal.note(put(2))
    assert numbers(Journal(state)) == [1, 2]


REFUSED = """
from pathlib import Path
import structlog
from felix_py import log
from felix_py.journal import Journal
journal = Journal(Path({directory!r}))
log.set_up(log_format="json", level="warning", observers=[journal.note])
for dst in "ab":
    structlog.get_logger().info("route.put", dst=dst, route="x")
print(*(entry.number for entry in journal.entries()[0]))
"""


def test_a_full_disk_costs_nothing_but_persistence_and_half_a_line_is_no_harm(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note(put(1))
    length = (tmp_path / "journal.jsonl").stat().st_size
    # A limit on the file's size stands for a full disk: half of the next line fits, then writing fails.
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length + 20, unlimited[1]))
    try:
        with capture_logs() as said:  # which go to a file as well, where the limit holds too
            journal.note(put(2))
        assert [entry["event"] for entry in said] == ["journal.refused"]
        assert (tmp_path / "journal.jsonl").stat().st_size == length + 20
        assert numbers(journal) == [1, 2]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    journal.note(put(3))
    assert numbers(Journal(tmp_path)) == [1, 2, 3]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's\n")
    target.chmod(0o644)
    (tmp_path / "journal.jsonl").symlink_to(target)
    with capture_logs() as said:
        Journal(tmp_path).note(put(1))
    assert [entry["event"] for entry in said] == ["journal.refused"]
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("somebody's\n", 0o644)


# --- the loop


def test_a_storm_of_a_thousand_events_costs_the_loop_little_and_all_are_written(tmp_path: Path) -> None:
    async def scenario() -> float:
        journal = Journal(tmp_path)
        writer = asyncio.create_task(journal.run())
        await asyncio.sleep(0)
        started = time.thread_time()  # what the loop spends, whatever else the machine does
        for number in range(1000):
            journal.note(put(number))
        spent = time.thread_time() - started
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        return spent

    assert min(asyncio.run(scenario()) for _ in range(3)) < 0.020
    assert len(numbers(Journal(tmp_path))) == 3000


def answer(journal: Journal, **query: str) -> tuple[int, dict[str, Any]]:
    status, found = asyncio.run(journal.events((), query))
    return status, dict(found)


def test_the_answer_names_the_number_to_ask_for_next() -> None:
    journal = Journal(None, lambda: NOON)
    assert answer(journal) == (200, {"last": 0, "events": []})
    journal.note(put(7))
    expected = {
        "id": 1,
        "time": "2026-11-25T12:00:00.000Z",
        "event": "route.put",
        "subject": "10.65.0.7/32",
        "what": "installed: dev cali0",
        "cause": "",
    }
    assert answer(journal, since="30") == (200, {"last": 1, "events": [expected]})
    assert answer(journal, after="1") == (200, {"last": 1, "events": []})


def test_an_old_event_is_not_shown_but_counts_as_known() -> None:
    clock = [NOON]
    journal = Journal(None, lambda: clock[0])
    journal.note(put(1))
    clock[0] += 100
    assert answer(journal, since="30") == (200, {"last": 1, "events": []})


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "5m", ""])
def test_a_bad_number_is_refused_with_what_to_give(text: str) -> None:
    assert answer(Journal(None), since=text) == (
        400,
        {"error": f"since is {text!r}; give a number, 0 or above, as since=30"},
    )


def test_a_waiting_follower_is_told_at_once_by_whatever_thread() -> None:
    async def scenario() -> tuple[list[int], float]:
        journal = Journal(None)
        writer = asyncio.create_task(journal.run())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(journal.events((), {"after": "0", "wait": "20"}))
        await asyncio.sleep(0)
        started = time.monotonic()
        await asyncio.to_thread(journal.note, put(1))
        _, found = await waiting
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        return [event["id"] for event in found["events"]], time.monotonic() - started

    found, spent = asyncio.run(scenario())
    assert found == [1]
    assert spent < 5


def test_a_follower_without_news_is_answered_in_time() -> None:
    assert answer(Journal(None), after="0", wait="0.01") == (200, {"last": 0, "events": []})
