"""Deaths: of the BGP process, of BIRD; no route may be lost by any of them, on either side."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from bgp_lab import (
    BLOCKS,
    NODES,
    TOR,
    TOR_BLOCK,
    Lab,
    Node,
    bird_configuration,
    one_beside_bird,
    running,
    settings,
    tor,
    two_beside_bird,
    until,
)
from loops import in_a_loop

pytestmark = pytest.mark.interop

HANGS = 3
"""How often it is stopped: each time at another moment between two KEEPALIVEs."""


@in_a_loop
async def test_kills_in_a_row_lose_no_route_anywhere(lab: Lab) -> None:
    async with two_beside_bird(lab) as (one, two):
        await until(lambda: one.settled() and two.settled(), "all is up")
        await until(lambda: all(lab.bird.has(block) for block in BLOCKS.values()), "BIRD has both blocks")
        with lab.route_events() as events:
            for number in range(1, 4):  # tests/netns/test_deaths.py has twenty, with agents and packets
                child = one.service.child_pid
                assert child is not None
                os.kill(child, signal.SIGKILL)
                await until(lambda n=number: one.service.respawns == n and one.settled(), f"up after kill {number}")
            await until(two.settled, "the other node's sessions are up")
            await until(lambda: "restart active" not in lab.bird.ask("show", "protocols", "all"), "BIRD is done")
            assert events() == ""
        assert (one.lost, two.lost) == (set(), set())
        assert not any(best.path.stale for best in two.service.best_paths().values())
        assert one.peer().history[-1].cause == "session established"
        assert "killed by signal 9" in " ".join(change.cause for change in one.peer().history)


@in_a_loop
async def test_paths_are_stale_while_our_process_is_dead(lab: Lab) -> None:
    async with one_beside_bird(lab) as one:
        await until(one.settled, "all is up")
        child = one.service.child_pid
        assert child is not None
        os.kill(child, signal.SIGKILL)
        await until(lambda: one.service.child_pid != child, "the death is noticed", within=2)
        assert one.service.best_paths()[TOR_BLOCK].path.stale
        assert one.peer().stale == one.peer().received == 4
        assert "kept for" in one.peer().restart
        await until(lambda: not one.service.best_paths()[TOR_BLOCK].path.stale, "it is fresh again")


@in_a_loop
async def test_a_killed_router_is_bridged_over(lab: Lab) -> None:
    async with one_beside_bird(lab) as one:
        await until(one.settled, "the session is up")
        lab.bird.kill()
        await until(lambda: not one.established(), "the death is noticed", within=2)
        assert one.service.best_paths()[TOR_BLOCK].path.stale
        assert one.peer().history[-1].cause == "connection lost"
        lab.bird.start(bird_configuration(n2=False), recover=True)
        await until(one.settled, "the session is up again")
        assert not one.service.best_paths()[TOR_BLOCK].path.stale
        assert one.lost == set()
        await until(lambda: lab.bird.has(BLOCKS["n1"]), "BIRD has our block again")


@in_a_loop
async def test_routes_that_a_restarted_router_does_not_say_again_are_swept(lab: Lab) -> None:
    async with one_beside_bird(lab) as one:
        await until(one.settled, "the session is up")
        lab.bird.kill()
        await until(lambda: not one.established(), "the death is noticed", within=2)
        lab.bird.start(bird_configuration(n2=False).replace(f"route {TOR_BLOCK} blackhole;", ""), recover=True)
        await until(lambda: TOR_BLOCK not in one.service.best_paths(), "what was not said again is gone")
        assert one.peer().end_of_rib


@in_a_loop
async def test_a_child_that_writes_rubbish_is_replaced(lab: Lab, tmp_path: Path) -> None:
    lab.bird.start(bird_configuration(n2=False))
    once = f'test -e {tmp_path}/once || {{ touch {tmp_path}/once; echo "{{\\"type\\": 7, rubbish"; }}; exec "$@"'
    one = Node(lab, "n1", wrapper=("sh", "-c", once, "sh"))
    one.service.configure(settings("n1", tor(), mesh=False))
    async with running(one):
        await until(lambda: one.service.problem, "the problem is named")
        assert one.service.problem is not None
        assert "the BGP child wrote" in one.service.problem
        await until(one.established, "the next child works")
        assert one.service.problem is None
        assert one.service.respawns == 1


@in_a_loop
async def test_a_child_that_hangs_is_replaced_before_a_peer_with_the_shortest_hold_time_gives_us_up(lab: Lab) -> None:
    """A peer whose hold timer runs out forgets our paths at once; one whose connection ends keeps them (RFC 4724)."""
    lab.bird.start(bird_configuration(n2=False))
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(hold_time=3), mesh=False))
    async with running(one):
        await until(one.settled, "the session is up")
        await until(lambda: lab.bird.has(BLOCKS["n1"]), "BIRD has our block")
        with lab.route_events() as events:
            for number in range(1, HANGS + 1):
                child = one.service.child_pid
                assert child is not None
                start = time.monotonic()
                os.kill(child, signal.SIGSTOP)
                await until(lambda before=child: one.service.child_pid != before, "it is found", within=2)
                took = time.monotonic() - start
                await until(lambda n=number: one.service.respawns == n and one.settled(), "the next one works")
                await until(lambda: lab.bird.session_up("n1"), "BIRD is done")
                print(f"stuck for {took:.2f} s")  # noqa: T201 - a figure
            assert events() == ""
        assert one.lost == set()
        assert "nothing was heard of it" in " ".join(change.cause for change in one.peer().history)


CLOCK_IS_SET = """
import time
of_day, began = time.time, time.monotonic()
time.time = lambda: of_day() + ({step} if time.monotonic() > began + 2 else 0)
from bgp.exabgp_start import main
raise SystemExit(main())
"""


@in_a_loop
async def test_a_clock_that_is_set_ends_no_session(lab: Lab, tmp_path: Path) -> None:
    """An hour forward on one node, back on the other; no test may set a host's clock, so the process is misled."""

    def misled(name: str, step: int) -> Node:
        (tmp_path / f"{name}.py").write_text(CLOCK_IS_SET.format(step=step))
        return Node(lab, name, wrapper=(sys.executable, "-P", str(tmp_path / f"{name}.py")))

    lab.bird.start(bird_configuration())
    nodes = misled("n1", 3600), misled("n2", -3600)
    for name, node in zip(NODES, nodes, strict=True):
        node.service.configure(settings(name, tor(hold_time=3), mesh=False))
    async with running(*nodes):
        await until(lambda: all(node.established() for node in nodes), "both sessions are up")
        await asyncio.sleep(2 + 5)  # until the clock is set, and longer than the hold time after it
        assert [(node.established(), node.peer().flaps) for node in nodes] == [(True, 0), (True, 0)]


@in_a_loop
async def test_killing_the_agent_itself_loses_no_route_anywhere(lab: Lab) -> None:
    driver = [sys.executable, str(Path(__file__).parent / "bgp_driver.py"), "n1", *lab.inside("n1")]
    lab.bird.start(bird_configuration())
    two = Node(lab, "n2")
    two.service.configure(settings("n2", tor()))
    async with running(two):
        with lab.program(driver) as kill:
            await until(lambda: two.settled() and lab.bird.has(BLOCKS["n1"]), "all is up")
            with lab.route_events() as events:
                kill()
                await until(lambda: not two.established(NODES["n1"]), "the death is noticed", within=2)
                with lab.program(driver):
                    await until(two.settled, "the next agent is up")
                    await until(lambda: lab.bird.session_up("n1"), "and with BIRD")
                    assert events() == ""
                    assert two.lost == set()


def test_the_child_ends_with_the_agent(lab: Lab) -> None:
    async def scenario() -> int:
        one = Node(lab, "n1")
        one.service.configure(settings("n1", tor(), mesh=False))
        async with running(one):
            await until(lambda: one.service.child_pid, "there is a child")
            child = one.service.child_pid
        assert child is not None
        assert one.service.child_pid is None
        return child

    child = asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@in_a_loop
async def test_no_peer_needs_no_process(lab: Lab) -> None:
    one = Node(lab, "n1")
    one.service.configure(settings("n1", mesh=False))
    assert one.service.converged()
    async with running(one):
        one.service.configure(settings("n1"))
        await until(lambda: one.service.child_pid, "there is a child")
        one.service.configure(settings("n1", mesh=False))
        await until(lambda: one.service.child_pid is None, "the child is gone")


@pytest.mark.alone
@in_a_loop
async def test_an_idle_child_costs_next_to_nothing(lab: Lab) -> None:
    addresses = [TOR + offset for offset in range(5)]
    for address in addresses[1:]:
        lab.another_bird(address).start(bird_configuration(address=address, n2=False))
    ticks = os.sysconf("SC_CLK_TCK")

    def cpu_seconds(pid: int) -> float:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / ticks

    def status(pid: int, field: str) -> str:
        return Path(f"/proc/{pid}/status").read_text().partition(f"{field}:")[2].split()[0]

    lab.bird.start(bird_configuration(n2=False))
    one = Node(lab, "n1")
    one.service.configure(settings("n1", *(tor(address=each, name=str(each)) for each in addresses), mesh=False))
    async with running(one):
        await until(one.settled, "five sessions are up")
        child = one.service.child_pid
        assert child is not None
        before = cpu_seconds(child)
        await asyncio.sleep(6)  # the time itself is what is measured
        used = (cpu_seconds(child) - before) / 6
        resident = int(status(child, "VmRSS")) / 1024
        print(f"idle child with 5 peers: {used:.2%} of a core, {resident:.1f} MiB resident")  # noqa: T201 - a figure
        assert used < 0.01
        assert resident < 36
        assert status(child, "Uid") != "0"
