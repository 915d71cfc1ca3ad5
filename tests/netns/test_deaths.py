"""A node's agent dies twenty times in a row, and so does its ExaBGP: no packet and nobody else's kernel notices."""

from collections.abc import Callable, Iterator

import deaths
import pytest
from labs import lab_name, standing

from felix_py.lab.state import Lab

pytestmark = [pytest.mark.netns, pytest.mark.alone]

NAME = lab_name("die")
KILLS = 20


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Bring one lab up for all tests of this file."""
    with standing(NAME) as lab:
        yield lab


@pytest.mark.parametrize("kill", [deaths.kill_agent, deaths.kill_exabgp])
def test_twenty_deaths_in_a_row_cost_no_packet_and_move_no_route(lab: Lab, kill: Callable[[Lab], float]) -> None:
    with deaths.witness(lab) as seen:
        took = [kill(lab) for _ in range(KILLS)]
    assert seen.lost == dict.fromkeys(seen.sent, 0)
    assert seen.moved == dict.fromkeys(deaths.EVERYBODY, ())
    assert min(seen.sent.values()) * deaths.PACE > sum(took) / 2, "the streams flowed all the while"
