"""Nothing leaks, nothing is lost, no session ends by a false alarm: short runs of what the benchmarks do at length."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import bgp_parties as parties
import busy_peers
import churned
import pytest
from bgp_parties import Wire, until

pytestmark = [pytest.mark.interop, pytest.mark.alone]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with parties.wire(tmp_path) as made:
        yield made


def test_churn_leaves_memory_and_descriptors_as_they_were(wire: Wire) -> None:
    early, late = churned.churn(wire, 2_000, 5, 25)
    assert late.updates - early.updates > 40_000
    assert late.agent - early.agent < 4
    assert late.exabgp - early.exabgp < 1
    assert (late.descriptors, late.threads) == (early.descriptors, early.threads)


def test_no_session_is_lost_on_a_machine_that_is_busy_beyond_its_cores(wire: Wire) -> None:
    seen = busy_peers.watched(wire, peers=20, table=5_000, flood=40_000, seconds=10)
    assert (seen.flaps, seen.respawns) == (0, 0), seen.reasons
    assert seen.turns >= 3


def test_an_agent_that_stands_still_loses_no_prefix_and_no_session(wire: Wire) -> None:
    """More than the pipe and the child's own buffer would hold, told while the agent is stopped for two hold times."""
    count, told = 3, 100_000
    table = [
        f"route {parties.block(number)} via {parties.SOURCE} {{ bgp_community.add((64512, {number // 4})); }};"
        for number in range(told)
    ]
    with busy_peers.birds(wire, count, table) as made, busy_peers.felix(wire, count) as felix:
        agent, before = felix.processes()[0], wire.routes()
        os.kill(agent, signal.SIGSTOP)
        try:
            made[0].ask("enable table4")
            time.sleep(2 * busy_peers.HOLD_TIME + 1)  # the time itself is what is tested
            assert all(bird.established() for bird in made)
        finally:
            os.kill(agent, signal.SIGCONT)
        until(lambda: wire.routes() >= before + told, "every prefix is in the kernel", 0.05)
        assert [each["flaps"] for each in busy_peers.sessions(felix, count)] == [0] * count
