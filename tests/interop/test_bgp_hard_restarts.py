"""Restarts with a router that has no graceful restart: routes go, and everything comes back without anybody's help."""

import os
import signal

import pytest
from bgp_lab import BLOCKS, TOR_BLOCK, Lab, Node, bird_configuration, running, settings, tor, until
from loops import in_a_loop

pytestmark = pytest.mark.interop

CONFIGURATION = bird_configuration(n2=False).replace("graceful restart on;", "graceful restart off;")


def knows_us(lab: Lab) -> bool:
    return lab.bird.has(BLOCKS["n1"])


@in_a_loop
async def test_a_router_that_dies_takes_its_routes_along_and_brings_them_back(lab: Lab) -> None:
    lab.bird.start(CONFIGURATION)
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(), mesh=False))
    async with running(one):
        await until(lambda: TOR_BLOCK in one.service.best_paths(), "its block is there")
        assert not any("graceful" in each for each in one.peer().capabilities_in_common)
        lab.bird.kill()
        await until(lambda: not one.service.best_paths(), "its routes are gone at once", within=2)
        assert one.peer().stale == 0
        lab.bird.start(CONFIGURATION)
        await until(lambda: TOR_BLOCK in one.service.best_paths(), "its block is back")
        await until(lambda: knows_us(lab), "and it has ours")


@in_a_loop
async def test_our_process_dies_and_the_router_forgets_us_until_it_is_back(lab: Lab) -> None:
    lab.bird.start(CONFIGURATION)
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(), mesh=False))
    async with running(one):
        await until(lambda: one.established() and knows_us(lab), "all is up")
        child = one.service.child_pid
        assert child is not None
        with lab.route_events() as events:
            os.kill(child, signal.SIGKILL)
            await until(lambda: f"Deleted {BLOCKS['n1']}" in events(), "the router forgets us")
            await until(lambda: one.established() and knows_us(lab), "and knows us again")
        # It is us who restarted: what the router said is used on, and said again by the router.
        await until(lambda: not one.service.best_paths()[TOR_BLOCK].path.stale, "its block is fresh")
        assert one.lost == set()
