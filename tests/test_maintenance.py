"""What people want of BGP until they take it back: as a value, as a file, and as settings of the speaker."""

import errno
import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from bgp_builders import A2, B1, peer, settings
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from felix_py.maintenance import Maintenance, Presence, decode, encode, shown
from felix_py.maintenance_file import MaintenanceFile

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
DRAINING = Maintenance().with_presence(Presence.DRAINING, "a new board", NOON)
LEFT = DRAINING.with_presence(Presence.LEFT, "", NOON + timedelta(minutes=5))
TWO = settings(peer(B1), peer(A2))

ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))
VALUES = st.builds(
    Maintenance,
    st.sampled_from(Presence),
    st.none()
    | st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)).map(lambda t: t.replace(microsecond=0)),  # noqa: DTZ001 - Hypothesis adds the zone
    st.text(st.characters(exclude_categories=("Cs",))),
    st.dictionaries(ADDRESSES, st.text(st.characters(exclude_categories=("Cs",)))),
)


def test_leaving_keeps_the_words_and_the_time_of_draining() -> None:
    assert (LEFT.presence, LEFT.message, LEFT.since) == (Presence.LEFT, "a new board", NOON)


def test_serving_again_forgets_why_and_leaves_sessions_disabled() -> None:
    both = DRAINING.with_disabled(B1, "flaps")
    assert both.with_presence(Presence.SERVING, "", NOON) == Maintenance(disabled={B1: "flaps"})


def test_a_drain_until_the_restart_is_gone_with_it_and_sessions_stay_disabled() -> None:
    passing = Maintenance().with_disabled(B1, "flaps").until_restart("an update", NOON)
    assert passing.applied(TWO).draining
    assert passing.sentence() == "drains until the agent is started again, what it announces ranks last: an update"
    assert decode(encode(passing)) == Maintenance(disabled={B1: "flaps"})


@pytest.mark.parametrize("asked", [DRAINING, LEFT], ids=["draining", "left"])
def test_what_people_have_asked_for_outlasts_a_drain_until_the_restart(asked: Maintenance) -> None:
    assert asked.until_restart("an update", NOON) == asked
    passing = Maintenance().until_restart("an update", NOON)
    assert decode(encode(passing.with_presence(Presence.DRAINING, "a new board", NOON))).message == "a new board"


def test_a_session_is_enabled_alone_and_twice_is_once() -> None:
    both = Maintenance().with_disabled(B1, "").with_disabled(A2, "x")
    assert (
        both.without_disabled(B1) == both.without_disabled(B1).without_disabled(B1) == Maintenance(disabled={A2: "x"})
    )


@pytest.mark.parametrize(
    ("wanted", "draining", "leaving", "farewell"),
    [
        pytest.param(Maintenance(), False, False, "", id="serving"),
        pytest.param(DRAINING, True, False, "a new board", id="draining"),
        pytest.param(LEFT, True, True, "a new board", id="left"),
    ],
)
def test_the_speaker_does_as_people_want(wanted: Maintenance, draining: bool, leaving: bool, farewell: str) -> None:  # noqa: FBT001 - columns
    found = wanted.applied(TWO)
    assert (found.draining, found.leaving, found.farewell) == (draining, leaving, farewell)
    assert [each.disabled for each in found.peers] == [None, None]


def test_a_disabled_session_is_known_to_the_speaker_and_no_other() -> None:
    found = Maintenance(disabled={A2: "a new switch"}).applied(TWO)
    assert {each.address: each.disabled for each in found.peers} == {B1: None, A2: "a new switch"}


def test_people_are_told_what_brings_the_node_back() -> None:
    assert shown(Maintenance())["sentence"] is None
    expected = "drains, what it announces ranks last: a new board; `felixctl bgp undrain` ends it"
    assert (shown(DRAINING)["sentence"], shown(DRAINING)["since"]) == (expected, "2026-11-26T12:00:00Z")
    assert str(shown(LEFT)["sentence"]).startswith("has left and announces nothing: a new board; ")


# --- the file


@given(VALUES)
def test_what_is_written_is_read(value: Maintenance) -> None:
    assert decode(encode(value)) == value


def test_it_outlives_the_agent_and_is_roots_alone(tmp_path: Path) -> None:
    MaintenanceFile(tmp_path).put(LEFT.with_disabled(B1, "é"))
    again = MaintenanceFile(tmp_path)
    assert (again.value, again.problem) == (LEFT.with_disabled(B1, "é"), None)
    assert stat.S_IMODE((tmp_path / "maintenance.json").stat().st_mode) == 0o600


def test_what_concerns_a_peer_that_is_gone_is_forgotten_for_good(tmp_path: Path) -> None:
    gone = ip_address("192.0.2.1")
    file = MaintenanceFile(tmp_path)
    file.put(Maintenance(disabled={gone: "", B1: ""}))
    file.applied(TWO)
    assert file.value.disabled.keys() == MaintenanceFile(tmp_path).value.disabled.keys() == {B1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "Expecting value", id="empty"),
        pytest.param(encode(DRAINING)[:50], "Unterminated string", id="torn"),
        pytest.param("[]", "no document of version 1", id="a list"),
        pytest.param('{"version": 2}', "no document of version 1", id="another version"),
        pytest.param(encode(DRAINING).replace("draining", "asleep"), "'asleep' is not a valid Presence", id="presence"),
        pytest.param(encode(DRAINING).replace('"a new board"', "7"), "message is 7", id="a number for a text"),
        pytest.param(encode(DRAINING).replace("2026", "noon"), "does not match format", id="a time that is none"),
        pytest.param(encode(DRAINING).replace("{}", '{"here": ""}'), "'here' does not appear", id="no address"),
    ],
)
def test_a_damaged_file_is_reported_in_one_sentence_and_nothing_is_taken_from_it(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "maintenance.json"
    path.write_text(text)
    with capture_logs() as logged:
        file = MaintenanceFile(tmp_path)
    assert file.value == Maintenance()
    assert str(file.problem).startswith(f"{path} is damaged (")
    assert why in str(file.problem)
    assert [each["fault"] for each in logged] == [file.problem]
    file.applied(TWO)
    assert path.read_text() == text, "it stays for whoever wants to look, until something is asked for"
    file.put(DRAINING)
    assert (MaintenanceFile(tmp_path).value, file.problem) == (DRAINING, None)


def test_what_cannot_be_written_holds_all_the_same_and_says_so(tmp_path: Path) -> None:
    file = MaintenanceFile(tmp_path / "state")
    (tmp_path / "state").write_text("a file where the folder should be")
    file.put(DRAINING)
    assert file.value == DRAINING
    what = f"{tmp_path}/state/maintenance.json cannot be written: {os.strerror(errno.ENOTDIR)}"
    assert file.problem == f"{what}; what was asked is forgotten at a restart"
    (tmp_path / "state").unlink()
    file.put(LEFT)
    assert file.problem is None
