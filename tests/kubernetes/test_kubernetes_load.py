"""What agents ask of an API server while nothing happens, counted there."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from cluster import cluster, eventually
from test_kubernetes_agents import POOL, ready

pytestmark = [pytest.mark.kubernetes, pytest.mark.netns]

SETTLED, WATCHED = 15.0, 60.0
"""Seconds until nothing happens any more, and seconds that are counted."""


def test_an_idle_node_asks_twice_a_minute_at_most(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        who = made.install()
        made.server.apply(POOL)
        for number, name in enumerate(("a1", "a2"), start=1):
            made.node(name, 1, number).start(who)
        ready(made, "a1", "a2")
        for node in made.nodes.values():
            node.add(f"{node.name}-1")
        eventually(lambda: made.sessions("a1") == made.sessions("a2") == (1, 0), "both have their session")
        time.sleep(SETTLED)  # nothing comes that could be awaited: that is what this test is about
        before = made.requests()
        time.sleep(WATCHED)
        asked = made.requests() - before
        assert len(asked) <= 2 * len(made.nodes) * WATCHED / 60, asked
