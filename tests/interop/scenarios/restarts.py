"""Scenarios about deaths and returns: of the router, of our agent, and of the connection between them."""

import re
from functools import partial
from pathlib import Path

from daemons import PLAIN, Neighbour
from felix_node import OWN_AS, peer
from interop_lab import BLOCKS, D1, D1_BLOCK, D2_BLOCK, N1, TOR_AS, Lab, stays, until
from relay import ROUTE_REFRESH, UPDATE, message

from bgp.types import Attributes
from scenarios.registry import base, converged, one_router, pair, scenario

GROWTH = 8192
"""KiB: each session's last twenty changes of state, and the journal, are kept on purpose, and fill up meanwhile."""

SESSIONS, ROUNDS = 25, 4
"""A hundred losses; GoBGP sits still for five seconds after each, so many sessions lose theirs together."""


@scenario("7", "The router dies: its routes leave the kernel, at once or after the hold time")
def dies(lab: Lab) -> None:
    ours, router = pair(lab, hold_time=3)
    router.kill()
    at_once = until(lambda: not ours.forwards(D1_BLOCK), "its block is out of the kernel", within=1)
    router = one_router(lab, hold_time=3)
    converged(ours, router)
    router.freeze()
    silent = until(lambda: not ours.forwards(D1_BLOCK), "its block is out of the kernel", within=4.5)
    assert silent > 1.5, "a silent router is given its hold time"
    assert "Hold Timer Expired" in ours.session(D1)["lastNotification"]["sent"]
    lab.note(f"killed {at_once * 1000:.0f} ms, silent {silent:.1f} s of hold time 3")


@scenario("8", "Our agent is killed and returns: neither side loses a route (RFC 4724)")
def agent_killed(lab: Lab) -> None:
    ours, router = pair(lab, restart_time=30)
    with lab.route_events("n1") as events:
        ours.kill()
        until(lambda: not router.session(N1).established, "the router noticed")
        assert router.has(BLOCKS["n1"]), "the router keeps our block"
        ours.start()

        def back() -> bool:
            assert router.has(BLOCKS["n1"]), "the router keeps our block"
            assert ours.forwards(D1_BLOCK), "our kernel keeps the router's block"
            return ours.established(D1) and bool(ours.session(D1)["gracefulRestart"]["endOfRIB"])

        until(back, "the session is back, and the router has said everything")
        path = ours.path(D1_BLOCK)
        assert path is not None
        assert path["stale"] is False
        assert events() == ""
    router.announce({D2_BLOCK: PLAIN})
    until(lambda: ours.forwards(D2_BLOCK), "news arrive as before")


@scenario("8b", "The router is killed and returns: our kernel sees nothing of it, and what it forgot is swept")
def router_returns(lab: Lab) -> None:
    ours, router = pair(lab, restart_time=30)
    router.announce({D2_BLOCK: PLAIN})
    until(lambda: ours.forwards(D2_BLOCK), "a second block is in our kernel")
    with lab.route_events("n1") as events:
        router.kill()
        until(lambda: not ours.established(D1), "we noticed")
        path = ours.path(D1_BLOCK)
        assert path is not None
        assert path["stale"] is True
        router.said.pop(D2_BLOCK)
        router = lab.daemon("d1", TOR_AS, *router.setup.neighbours, restarting=True)
        until(lambda: not ours.forwards(D2_BLOCK), "what the router does not say again is swept", within=15)
        assert ours.forwards(D1_BLOCK)
        assert str(D1_BLOCK) not in events()


@scenario("9", "The router is killed and does not return: its routes leave when its restart time is over")
def expires(lab: Lab) -> None:
    ours, router = pair(lab, restart_time=2)
    router.kill()
    until(lambda: not ours.established(D1), "we noticed")
    until(lambda: (ours.route(D1_BLOCK) or {}).get("state") == "stale", "its block is kept, as stale")
    took = until(lambda: not ours.forwards(D1_BLOCK), "its block is out of the kernel", within=4)
    assert took > 1, "it was kept for its restart time"
    lab.note(f"kept {took:.1f} s of 2")


@scenario("9b", "Our agent is killed and does not return: the router forgets our block")
def we_expire(lab: Lab) -> None:
    ours, router = pair(lab, restart_time=30, peer_spec={"maxRestartTime": "2s"})
    ours.kill()
    until(lambda: not router.session(N1).established, "the router noticed")
    assert router.has(BLOCKS["n1"])
    took = until(lambda: not router.has(BLOCKS["n1"]), "the router has forgotten our block", within=5)
    assert took > 1, "it kept it for our restart time"


@scenario("21", "Malformed UPDATEs: treated as withdrawals, and the session stays (RFC 7606)")
def malformed(lab: Lab) -> None:

    middle = lab.relay(0, towards=D1)
    router = lab.daemon("d1", TOR_AS, Neighbour(middle.address, OWN_AS))
    router.announce({D1_BLOCK: PLAIN, D2_BLOCK: PLAIN})
    ours = lab.felix("n1", *base("n1", peer(middle.address, TOR_AS)))
    until(lambda: ours.forwards(D1_BLOCK) and ours.forwards(D2_BLOCK), "both blocks are in the kernel")
    for number, (name, attributes) in enumerate(MALFORMED.items()):
        middle.slip_in(_update(attributes))
        until(lambda: not ours.forwards(D2_BLOCK), f"{name}: treated as a withdrawal")
        assert ours.forwards(D1_BLOCK)
        # Something has to be new about it, or the router need not say it again.
        router.announce({D2_BLOCK: Attributes(next_hop=None, med=number + 1)})
        until(lambda: ours.forwards(D2_BLOCK), f"{name}: the router says it again, and it is back")
    assert (ours.session(middle.address)["flaps"], middle.connections) == (0, 1)
    assert router.session(middle.address).established


ORIGIN, PATH, NEXT_HOP = b"\x40\x01\x01\x00", b"\x40\x02\x06\x02\x01\x00\x00\xfb\xf4", b"\x40\x03\x04\x0a\x09\x00\x01"
MALFORMED = {
    "no ORIGIN": PATH + NEXT_HOP,
    "no NEXT_HOP": ORIGIN + PATH,
    "ORIGIN of no known value": b"\x40\x01\x01\x09" + PATH + NEXT_HOP,
    "NEXT_HOP of three octets": ORIGIN + PATH + b"\x40\x03\x03\x0a\x09\x00",
    "COMMUNITIES of three octets": ORIGIN + PATH + NEXT_HOP + b"\xc0\x08\x03\x00\x00\x00",
    "MULTI_EXIT_DISC of three octets": ORIGIN + PATH + NEXT_HOP + b"\x80\x04\x03\x00\x00\x00",
    "an AS_PATH segment longer than its attribute": ORIGIN + b"\x40\x02\x06\x02\x09\x00\x00\xfb\xf4" + NEXT_HOP,
    "LARGE_COMMUNITY of eleven octets": ORIGIN + PATH + NEXT_HOP + b"\xc0\x20\x0b" + bytes(11),
}
"""Path attributes of an UPDATE, each wrong in its way; for all RFC 7606 sections 3 and 7 ask for treat-as-withdraw."""


def _update(attributes: bytes) -> bytes:
    prefix = bytes([D2_BLOCK.prefixlen]) + D2_BLOCK.network_address.packed
    return message(UPDATE, b"\x00\x00" + len(attributes).to_bytes(2, "big") + attributes + prefix)


@scenario("23", f"{SESSIONS} connections are lost {ROUNDS} times each: nothing leaks")
def flaps(lab: Lab) -> None:
    middle = [lab.relay(number, towards=D1) for number in range(SESSIONS)]
    router = lab.daemon("d1", TOR_AS, *(Neighbour(each.address, OWN_AS) for each in middle))
    router.announce({D1_BLOCK: PLAIN})
    ours = lab.felix("n1", *base("n1", *(peer(each.address, TOR_AS) for each in middle)))

    def all_up_after(lost: int) -> bool:
        rows = [ours.session(each.address) for each in middle]
        return all(row["state"] == "Established" and row["flaps"] >= lost for row in rows)

    until(lambda: all_up_after(0), "all sessions are up")
    for number in range(1, ROUNDS + 1):
        for each in middle:
            each.cut()
        until(partial(all_up_after, number), f"all sessions are back after loss {number}", within=20)
        if number == 1:
            opened, memory = ours.descriptors(), _memory(ours.process.pid)
    until(lambda: ours.forwards(D1_BLOCK), "the router's block is in the kernel")
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")
    grown = _memory(ours.process.pid) - memory
    assert ours.descriptors() <= opened + 2
    assert grown < GROWTH, f"{grown} KiB more than after the first loss"
    lab.note(f"{grown} KiB")


def _never_asks(lab: Lab) -> None:
    _, router = pair(lab)
    before = router.session(N1).updates
    router.ask_again(N1)
    stays(lambda: router.session(N1).updates == before, 0.5, "nothing was asked for, and nothing said")


@scenario(
    "25",
    "The router asks for everything again (RFC 2918): it is said, and nobody loses anything",
    cannot={"gobgp": "its soft reset judges anew what it has kept, and sends no ROUTE-REFRESH"},
    refuse=_never_asks,
)
def asked_again(lab: Lab) -> None:
    ours, router = pair(lab)
    before = router.session(N1).updates
    router.ask_again(N1)
    until(lambda: router.session(N1).updates > before, "we have said it again")
    stays(lambda: router.has(BLOCKS["n1"]), 0.3, "the router has our block")
    assert (ours.session(D1)["flaps"], ours.established(D1)) == (0, True)


@scenario("25b", "We ask the router for everything again (RFC 2918): it says it, and our kernel sees nothing of it")
def we_ask_again(lab: Lab) -> None:
    middle = lab.relay(0, towards=D1)
    router = lab.daemon("d1", TOR_AS, Neighbour(middle.address, OWN_AS))
    router.announce({D1_BLOCK: PLAIN})
    ours = lab.felix("n1", *base("n1", peer(middle.address, TOR_AS)))
    until(lambda: ours.forwards(D1_BLOCK) and router.has(BLOCKS["n1"]), "both have each other's block")
    enhanced = any("enhanced" in each for each in ours.session(middle.address)["capabilities"]["common"])
    with lab.route_events("n1") as events:
        before = middle.sent_by_daemon.count(UPDATE)
        ours.do("bgp", "peers", str(middle.address), "refresh")
        until(lambda: ROUTE_REFRESH in middle.sent_to_daemon, "we ask")
        until(lambda: middle.sent_by_daemon.count(UPDATE) > before, "the router says it again")
        if enhanced:
            until(lambda: middle.refreshes == [1, 2], f"it says where that begins and ends: {middle.refreshes}")
        stays(lambda: ours.path(D1_BLOCK) is not None, 0.3, "its block is still here")
        assert events() == ""
    assert ours.session(middle.address)["flaps"] == 0
    lab.note("with beginning and end (RFC 7313)" if enhanced else "")


def _memory(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])
