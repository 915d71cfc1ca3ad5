"""What felixctl prints, to the letter."""

from datetime import UTC, datetime

import pytest

from felix_py.ctl import output
from felix_py.ctl.routes import COLUMNS

NOW = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "text"),
    [
        ("2026-11-24T07:59:56Z", "4s"),
        ("2026-11-24T07:56:48Z", "3m12s"),
        ("2026-11-24T02:58:00Z", "5h02m"),
        ("2026-11-16T04:00:00Z", "8d04h"),
        ("2026-11-24T08:00:09Z", "0s"),
        (None, "-"),
    ],
)
def test_ages(since: str | None, text: str) -> None:
    assert output.age(since, NOW) == text


def row(prefix: str, state: str, reason: str | None = None, **fields: str) -> dict[str, object]:
    empty = dict.fromkeys(("kind", "nextHop", "device", "encapsulation", "from", "since"))
    facts = {"prefix": prefix, "state": state, "reason": reason}
    return {**empty, "nextHops": [], "kind": "remote", "from": "bgp x", **fields, **facts}


def test_the_routes_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(
        COLUMNS,
        [
            row("10.65.1.0/26", "installed", nextHop="172.31.1.12", device="eth0", encapsulation="none"),
            row("10.65.3.0/26", "missing", "tunl0 is down", nextHop="172.31.2.12", encapsulation="ipip"),
        ],
    )
    assert capsys.readouterr().out.splitlines() == [
        "PREFIX        KIND    NEXT HOP     DEVICE  ENCAP  FROM   AGE  STATE",
        "10.65.1.0/26  remote  172.31.1.12  eth0    none   bgp x  -    installed",
        "10.65.3.0/26  remote  172.31.2.12  -       ipip   bgp x  -    missing: tunl0 is down",
    ]


def test_a_route_with_several_next_hops_shows_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    several = [{"nextHop": "172.31.1.12", "device": "eth0"}, {"nextHop": "172.31.1.13", "device": "eth0"}]
    output.table(COLUMNS, [row("10.65.1.0/26", "installed") | {"nextHops": several}])
    assert "remote  172.31.1.12,172.31.1.13  eth0  " in capsys.readouterr().out


def test_no_colour_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    print(output.paint("installed", "good"))  # noqa: T201 - what the tool does
    assert capsys.readouterr().out == "installed\n"


def test_yaml_and_json_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"b": [1], "a": None}, "yaml")
    assert capsys.readouterr().out == "b:\n- 1\na: null\n"
    output.document({"b": [1], "a": None}, "json")
    assert capsys.readouterr().out == '{\n  "b": [\n    1\n  ],\n  "a": null\n}\n'
