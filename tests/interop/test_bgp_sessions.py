"""Sessions with BIRD and with ourselves: what is learned, announced, refused, and what goes wrong."""

import signal
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

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

from bgp.faults import Cause
from bgp.notification import words
from bgp.types import Notification, SessionState

pytestmark = pytest.mark.interop

NOTHING = Notification(0, 0)


@in_a_loop
async def test_two_nodes_and_bird_exchange_their_prefixes(lab: Lab) -> None:
    lab.bird.start(bird_configuration())
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(settings("n1", tor()))
    two.service.configure(settings("n2", tor()))
    assert not one.service.converged()
    async with running(one, two):
        await until(lambda: one.settled() and two.settled(), "all sessions up, all End-of-RIBs said")
        # The router passes the other node's block on to us as soon as it has it.
        await until(lambda: one.peer().received == 5, "the router has said all five")
        assert one.service.converged()
        best = one.service.best_paths()
        assert set(best) == {BLOCKS["n2"], TOR_BLOCK}
        assert best[BLOCKS["n2"]].path.attributes.next_hop == NODES["n2"]
        assert one.service.peer_name(best[BLOCKS["n2"]]) == "10.9.0.12 (n2)"
        assert best[TOR_BLOCK].path.attributes.as_path == (64500,)
        await until(lambda: all(lab.bird.has(block) for block in BLOCKS.values()), "BIRD has both blocks")
        assert "via 10.9.0.11" in lab.bird.ask("show", "route", str(BLOCKS["n1"]))
        assert [each.prefix for each in one.service.advertised(TOR)] == [BLOCKS["n1"]]
        peer = one.peer()
        assert (peer.hold_time, peer.keepalive, peer.received) == (90, 30, 5)
        assert peer.remote is not None
        assert peer.remote.address == TOR
        assert "graceful restart (120 s)" in peer.capabilities_in_common


@in_a_loop
async def test_what_a_peer_should_not_say_is_refused_with_the_reason(lab: Lab) -> None:
    async with two_beside_bird(lab) as (one, _):
        await until(lambda: len(one.service.routes(TOR)) == 5, "the router's routes are there")
        refusals = {str(route.prefix): route.refusal for route in one.service.routes(TOR) if not route.accepted}
        assert refusals == {
            "0.0.0.0/0": "default route",
            "192.0.2.0/24": "outside every IP pool (10.65.0.0/16)",
            "10.65.2.0/26": "own AS in the AS path (64500 64512)",
            "10.65.1.32/28": "inside our own block (10.65.1.0/26)",
        }
        assert "10.65.1.32/28" not in map(str, one.service.best_paths())
        assert one.peer().rejected == 4


@pytest.mark.parametrize(
    ("bird_expects", "we_expect", "sentence"),
    [
        pytest.param(
            64512,
            64999,
            "OPEN Message Error: Bad Peer AS: peer says AS 64500, configured 64999",
            id="we expect another",
        ),
        pytest.param(
            64999,
            64500,
            "peer said OPEN Message Error: Bad Peer AS: the peer expects another AS than ours, 64512",
            id="BIRD expects another",
        ),
    ],
)
@in_a_loop
async def test_a_wrong_as_is_named(lab: Lab, bird_expects: int, we_expect: int, sentence: str) -> None:
    lab.bird.start(bird_configuration(node_as=bird_expects, n2=False))
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(asn=we_expect), mesh=False))
    async with running(one):
        await until(lambda: one.peer().last_error == sentence, f"last error is {sentence!r}")
        assert not one.established()
        told = (one.peer().notification_sent, one.peer().notification_received)
        assert "OPEN Message Error: Bad Peer AS" in [words(each) for each in told if each]


@in_a_loop
async def test_a_session_that_is_added_leaves_the_others_alone(lab: Lab) -> None:
    lab.bird.start(bird_configuration())
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(settings("n1"))
    two.service.configure(settings("n2", tor()))
    async with running(one, two):
        await until(one.settled, "the mesh is up")
        before, child = one.peer(NODES["n2"]).since, one.service.child_pid
        one.service.configure(settings("n1", tor()))
        await until(lambda: lab.bird.has(BLOCKS["n1"], "n1"), "BIRD has our block from the new session")
        assert one.service.child_pid == child
        assert one.peer(NODES["n2"]).flaps == 0
        assert abs(one.peer(NODES["n2"]).since - before).total_seconds() < 0.1


@in_a_loop
async def test_a_peer_that_is_removed_forgets_us_at_once(lab: Lab) -> None:
    async with two_beside_bird(lab) as (one, _):
        await until(lambda: lab.bird.has(BLOCKS["n1"], "n1") and one.settled(), "all is up")
        one.service.configure(settings("n1"))
        assert TOR_BLOCK not in one.service.best_paths()
        await until(lambda: not lab.bird.has(BLOCKS["n1"], "n1"), "BIRD has dropped our block", within=5)
        assert one.peer(NODES["n2"]).flaps == 0


@in_a_loop
async def test_announcements_come_and_go_without_a_session_going_down(lab: Lab) -> None:
    lab.bird.start(bird_configuration(n2=False))
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(), mesh=False))
    extra = IPv4Network("10.65.7.0/26")
    async with running(one):
        await until(lambda: one.settled() and lab.bird.has(BLOCKS["n1"]), "BIRD has our block")
        one.service.configure(settings("n1", tor(), mesh=False, blocks=["10.65.7.0/26"]))
        await until(lambda: lab.bird.has(extra), "BIRD has the new block")
        assert [each.prefix for each in one.service.advertised(TOR)] == [BLOCKS["n1"], extra]
        one.service.configure(settings("n1", tor(), mesh=False))
        await until(lambda: not lab.bird.has(extra), "BIRD has dropped the new block")
        assert lab.bird.has(BLOCKS["n1"])
        assert one.peer().flaps == 0


@in_a_loop
async def test_a_wider_pool_accepts_what_was_refused_before(lab: Lab) -> None:
    lab.bird.start(bird_configuration(n2=False))
    one = Node(lab, "n1")
    narrow = settings("n1", tor(), mesh=False)
    one.service.configure(narrow)
    async with running(one):
        await until(one.settled, "the session is up")
        assert IPv4Network("192.0.2.0/24") not in one.service.best_paths()
        one.service.configure(replace(narrow, accept_within=(*narrow.accept_within, IPv4Network("192.0.2.0/24"))))
        assert IPv4Network("192.0.2.0/24") in one.service.best_paths()
        assert one.peer().flaps == 0


@in_a_loop
async def test_a_peer_that_cannot_be_reached_is_named_and_harms_no_other(lab: Lab) -> None:
    lab.bird.start(bird_configuration(n2=False))
    one = Node(lab, "n1")
    nobody, refusing = IPv4Address("10.9.0.99"), NODES["n2"]
    absent = (tor(address=nobody, name="nobody"), tor(address=refusing, name="refusing"))
    one.service.configure(settings("n1", tor(), *absent, mesh=False))
    async with running(one):
        await until(one.established, "the router's session is up")
        await until(lambda: one.peer(refusing).fault is not None, "refusal is named")
        await until(lambda: one.peer(nobody).fault is not None, "absence is named")
        faults = [one.peer(each).fault for each in (refusing, nobody)]
        assert [each.cause for each in faults if each] == [Cause.REFUSED, Cause.NO_ROUTE]
        assert one.peer(nobody).state is SessionState.CONNECT
        assert not one.service.converged()


@in_a_loop
async def test_a_port_in_use_is_named_and_taken_when_it_is_free(lab: Lab) -> None:
    lab.bird.start(bird_configuration(n2=False))
    with lab.squatter("n1") as leave:
        one = Node(lab, "n1")
        one.service.configure(settings("n1", tor(), mesh=False))
        async with running(one):
            await until(lambda: one.service.problem, "the problem is named")
            assert one.service.problem == (
                "port 179 of 10.9.0.11 is in use by another program, so BGP holds no session; stop that program "
                "(`ss -ltnp sport = :179` names it) or choose another listenPort"
            )
            leave()
            await until(one.established, "the session is up")
            assert one.service.problem is None


@in_a_loop
async def test_a_router_that_shuts_down_takes_its_routes_along(lab: Lab) -> None:
    async with one_beside_bird(lab) as one:
        await until(lambda: TOR_BLOCK in one.service.best_paths(), "the router's block is there")
        lab.bird.kill(signal.SIGTERM)
        await until(lambda: TOR_BLOCK not in one.service.best_paths(), "the router's block is gone", within=3)
        assert one.peer().notification_received == Notification(6, 2)
        history = one.peer().history  # another attempt may have failed since
        up = max(at for at, change in enumerate(history) if change.state is SessionState.ESTABLISHED)
        assert history[up + 1].cause == "peer said Cease: Administrative Shutdown"


@in_a_loop
async def test_a_router_that_disables_the_session_gives_its_reason(lab: Lab) -> None:
    async with one_beside_bird(lab) as one:
        await until(one.settled, "the session is up")
        lab.bird.ask("disable", "n1", '"moving the rack"')
        await until(lambda: TOR_BLOCK not in one.service.best_paths(), "the router's block is gone", within=3)
        sentence = 'Cease: Administrative Shutdown: "moving the rack"'
        assert words(one.peer().notification_received or NOTHING) == sentence
        await until(lambda: one.peer().state is not SessionState.ESTABLISHED, "the session is down")
        lab.bird.ask("enable", "n1")
        await until(one.settled, "the session is up again")


@in_a_loop
async def test_another_port_takes_a_new_process_and_loses_nothing(lab: Lab) -> None:
    async with one_beside_bird(lab) as one:
        await until(one.settled, "the session is up")
        child = one.service.child_pid
        one.service.configure(replace(settings("n1", tor(), mesh=False), listen_port=1790))
        await until(lambda: one.service.child_pid not in (None, child) and one.settled(), "the next child is up")
        assert one.lost == set()
        assert one.service.respawns == 0


@in_a_loop
async def test_rubbish_on_the_port_harms_nobody(lab: Lab) -> None:
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(settings("n1", tor()))
    two.service.configure(settings("n2"))
    async with running(one, two):
        await until(two.settled, "the mesh is up")
        lab.send_rubbish("tor", NODES["n1"])  # from a peer's address
        lab.send_rubbish("n2", NODES["n1"])  # from one whose session is up
        await until(lambda: one.peer().notification_sent, "the rubbish is answered")
        assert words(one.peer().notification_sent or NOTHING) == "Message Header Error: Connection Not Synchronized"
        lab.bird.start(bird_configuration(n2=False))
        await until(one.established, "the router's session is up")
        assert (one.service.respawns, one.peer(NODES["n2"]).flaps) == (0, 0)


@in_a_loop
async def test_a_peer_that_is_removed_while_it_is_told_much_costs_nobody_a_session(lab: Lab) -> None:
    """Commands for the session that goes still wait in the child then; it takes none of them for a mistake."""
    many = [str(network) for network in IPv4Network("10.66.0.0/16").subnets(new_prefix=26)]
    async with two_beside_bird(lab) as (one, two):
        await until(lambda: one.settled() and two.settled(), "all is up")
        child = one.service.child_pid
        for blocks in (many, (), many, ()):
            one.service.configure(settings("n1", tor(), blocks=blocks))
            one.service.configure(settings("n1", tor(), mesh=False, blocks=blocks))
            await until(lambda: two.peer(NODES["n1"]).state is not SessionState.ESTABLISHED, "the mesh is gone")
            one.service.configure(settings("n1", tor(), blocks=blocks))
            await until(lambda: one.settled() and two.settled(), "all is up again")
        assert one.service.child_pid == child
        assert one.peer(TOR).flaps == 0
