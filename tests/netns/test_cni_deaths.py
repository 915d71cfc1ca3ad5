"""Pods that come and go while everybody is killed at random; `make bench NAME=cni_deaths` does it a thousand times."""

from pathlib import Path

import pytest
from cni_agent import AgentHost, prepare
from cni_dying import nothing_left, run
from cni_lab import host

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.mark.parametrize("seed", [11, 12])
def test_nothing_is_left_and_nothing_given_twice(tmp_path: Path, seed: int) -> None:
    with host(tmp_path, kind=AgentHost, before=prepare) as node:
        assert isinstance(node, AgentHost)
        tally = run(node, 40, seed)
        assert tally.twice == []
        assert tally.agents_killed > 0
        assert tally.fates["plugin killed"] > 0
        assert tally.answers["ADD 0"] > 0
        nothing_left(node)
