"""Health: which loops and parts make an agent dead, what makes a node not ready, and how it is written."""

import pytest

from felix_py.health import PATIENCE, Check, Health, Verdict, page


def health(**readiness: str | None) -> Health:
    return Health(100.0, {"loop": 90.0, "bgp": 10.0}, {name: lambda why=why: why for name, why in readiness.items()})


def failures(verdict: Verdict) -> list[str]:
    return [str(check) for check in verdict.checks if check.reason is not None]


def test_a_loop_is_measured_from_its_last_turn_and_before_that_from_the_start() -> None:
    agent = health()
    assert failures(agent.live(110.0)) == []
    assert failures(agent.live(110.1)) == ["[-]bgp failed: has not turned for 10 s, 10 s are allowed"]
    agent.beat("bgp", 110.0)
    assert failures(agent.live(120.0)) == []
    assert [check.name for check in agent.live(191.0).checks if check.reason] == ["loop", "bgp"]


def test_a_loop_without_a_watchdog_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="lop"):
        health().beat("lop", 100.0)


def test_a_part_may_fail_for_a_while_and_the_reason_is_the_latest() -> None:
    agent = health()
    for now in (100.0, 115.0):
        agent.fail("kernel", f"refused at {now:.0f}", now)
    agent.beat("loop", 130.0)
    agent.beat("bgp", 130.0)
    assert [str(check) for check in agent.live(100.0 + PATIENCE).checks] == [
        "[+]loop ok",
        "[+]bgp ok",
        "[+]kernel ok (failing: refused at 115, for 30 s)",
    ]
    assert failures(agent.live(130.5)) == ["[-]kernel failed: refused at 115, for 30 s"]
    agent.well("kernel", 131.0)
    assert failures(agent.live(131.0)) == []
    agent.fail("kernel", "again", 131.0)
    assert failures(agent.live(140.0)) == []


def test_readiness_asks_anew_each_time() -> None:
    reasons: list[str | None] = ["not in sync yet"]
    agent = Health(0.0, {}, {"inSync": lambda: reasons[0], "bgp": lambda: None})
    assert agent.ready() == Verdict((Check("inSync", "not in sync yet"), Check("bgp", None)))
    assert not agent.ready().well
    reasons[0] = None
    assert agent.ready().well


def test_being_ready_is_not_being_alive() -> None:
    agent = health(inSync="not in sync yet")
    assert agent.live(100.0).well
    assert not agent.ready().well


@pytest.mark.parametrize(
    ("checks", "verbose", "text"),
    [
        pytest.param((Check("loop", None),), False, "ok\n", id="well"),
        pytest.param((Check("loop", None),), True, "[+]loop ok\nlivez check passed\n", id="well, verbose"),
        pytest.param(
            (Check("loop", None), Check("kernel", "it is gone")),
            False,
            "[+]loop ok\n[-]kernel failed: it is gone\nlivez check failed\n",
            id="unwell",
        ),
        pytest.param((), True, "livez check passed\n", id="nothing to check"),
    ],
)
def test_a_verdict_for_people(checks: tuple[Check, ...], text: str, *, verbose: bool) -> None:
    assert page(Verdict(checks), "livez", verbose=verbose) == text
