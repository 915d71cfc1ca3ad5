"""Why a session is not up: the real agent with a real BIRD, one cause after the other, in words and for programs."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from daemons import PLAIN, Neighbour
from felix_node import OWN_AS, FelixNode, Row, node, peer
from interop_lab import ADDRESSES, D1, D1_BLOCK, D2, D2_BLOCK, N1, N2, RELAY, TOR_AS, Lab, until
from relay import message
from scenarios.registry import base, converged, one_router

from felix_py.ctl import client

pytestmark = pytest.mark.interop

PASSWORD, ANOTHER = "the-right-one", "a-wrong-one"
NOTIFICATION = 3
"""Type of the message (RFC 4271 section 4.1)."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab("bird", tmp_path)
    try:
        yield made
    finally:
        made.down()


def blamed(ours: FelixNode, address: IPv4Address, cause: str, *words: str, within: float = 15) -> Row:
    """Wait until a session has this cause; see that its sentence has these words, and return the session."""

    def said() -> bool:
        return bool(ours.session(address).get("lastErrorCause") == cause)

    try:
        until(said, f"the cause is {cause}", within)
    except AssertionError as late:
        raise AssertionError(f"{late}; it is {ours.session(address)}") from late
    session = ours.session(address)
    missing = [each for each in words if each not in session["lastError"]]
    assert not missing, f"{missing} in {session['lastError']!r}"
    return session


def secret(ours: FelixNode, word: str) -> str:
    """Return the path of a file with a password."""
    path = ours.directory / word
    path.touch(mode=0o600)
    path.write_text(word)
    return str(path)


def test_nothing_listens_there(lab: Lab) -> None:
    one_router(lab).stop()
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS)))
    blamed(ours, D1, "refused", "10.9.0.1 port 179 refuses the connection")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        pytest.param("192.0.2.1", "the kernel knows no way there", id="no route at all"),
        pytest.param("10.9.0.99", "nobody on the wire answers for it", id="nobody on the wire"),
    ],
)
def test_no_route_to_the_peer(lab: Lab, address: str, words: str) -> None:
    ours = lab.felix("n1", *base("n1", peer(address, TOR_AS)))
    blamed(ours, IPv4Address(address), "noRoute", f"no route to {address}", words)


@pytest.mark.parametrize(
    ("expected_by_us", "expected_by_the_peer", "words"),
    [
        pytest.param(TOR_AS + 1, OWN_AS, ("peer says AS 64500, configured 64501",), id="we expect another"),
        pytest.param(TOR_AS, OWN_AS + 1, ("the peer expects another AS than ours, 64512",), id="the peer does"),
    ],
)
def test_another_as(lab: Lab, expected_by_us: int, expected_by_the_peer: int, words: tuple[str, ...]) -> None:
    lab.daemon("d1", TOR_AS, Neighbour(N1, expected_by_the_peer))
    ours = lab.felix("n1", *base("n1", peer(D1, expected_by_us)))
    blamed(ours, D1, "asMismatch", *words)


@pytest.mark.parametrize(
    ("theirs", "own", "words"),
    [
        pytest.param(PASSWORD, ANOTHER, "passwords of the two sides differ", id="another one"),
        pytest.param(None, PASSWORD, "the peer has no TCP MD5 password, it seems, and here one is set", id="we only"),
        pytest.param(PASSWORD, None, "the peer has a TCP MD5 password, it seems, and here none is set", id="it only"),
    ],
)
def test_passwords_that_differ(lab: Lab, theirs: str | None, own: str | None, words: str) -> None:
    lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, password=theirs, passive=False))
    ours = lab.stopped_felix("n1")
    ours.start(*base("n1", peer(D1, TOR_AS, **({"passwordFile": secret(ours, own)} if own else {}))))
    until(lambda: words in (ours.session(D1)["lastError"] or ""), "the sentence says what differs", 20)
    blamed(ours, D1, "md5", "no answer from 10.9.0.1 port 179", "this host has dropped")
    assert not ours.established(D1)


def test_a_password_that_the_silent_peer_does_not_have_is_suspected_without_evidence(lab: Lab) -> None:
    lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS))
    ours = lab.stopped_felix("n1")
    ours.start(*base("n1", peer(D1, TOR_AS, passwordFile=secret(ours, PASSWORD))))
    blamed(ours, D1, "md5", "a TCP MD5 password is set here, and the peer may have another one, or none", within=8)


def test_a_peer_that_does_not_send_the_highest_ttl(lab: Lab) -> None:
    lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS))
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS, ttlSecurity=1)))
    blamed(ours, D1, "ttl", "ttlSecurity 1", "with a lower TTL")


def test_a_peer_that_falls_silent(lab: Lab) -> None:
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, hold_time=3))
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS, holdTime=3)))
    until(lambda: ours.established(D1), "the session is up")
    router.freeze()
    session = blamed(ours, D1, "holdTimer", "Hold Timer Expired: nothing came from the peer for 3 s")
    assert session["lastNotification"]["sent"] == "Hold Timer Expired"
    assert (session["notifications"]["sent"]["code"], session["notifications"]["sent"]["subcode"]) == (4, 0)


def test_a_peer_that_tells_too_much(lab: Lab) -> None:
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS, maxPrefixes={"maximum": 1})))
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS))
    router.announce({D1_BLOCK: PLAIN, D2_BLOCK: PLAIN})
    blamed(
        ours, D1, "maxPrefixes", "the peer told 2 prefixes, and maxPrefixes allows 1", "felixctl bgp enable 10.9.0.1"
    )


def test_a_session_that_people_took_down(lab: Lab) -> None:
    router = one_router(lab)
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS)))
    converged(ours, router)
    socket = ours.directory / "run" / "agent.sock"
    client.post(socket, "bgp", "peers", str(D1), "disable", message="moving")
    session = blamed(ours, D1, "disabled", "administratively down")
    assert session["lastNotification"]["sent"] == 'Cease: Administrative Shutdown: "moving"'
    client.post(socket, "bgp", "peers", str(D1), "enable")
    converged(ours, router)
    router.shut(N1, "moving the rack")
    blamed(ours, D1, "shutByPeer", 'peer said Cease: Administrative Shutdown: "moving the rack"')


def test_a_router_with_our_own_identifier(lab: Lab) -> None:
    lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS), router_id=IPv4Address(str(N1)))
    ours = lab.felix("n1", *base("n1", peer(D1, OWN_AS)))
    blamed(ours, D1, "routerID", "Bad BGP Identifier", "10.9.0.11")


def test_a_connection_that_collides(lab: Lab) -> None:
    lab.daemon("d1", TOR_AS, Neighbour(RELAY, OWN_AS, hops=2))
    relay = lab.relay(0, towards=D1)
    ours = lab.felix("n1", *base("n1", peer(RELAY, TOR_AS)))
    until(lambda: ours.established(RELAY), "the session is up")
    relay.slip_in(message(NOTIFICATION, bytes((6, 7))))
    session = blamed(ours, RELAY, "collision", "peer said Cease: Connection Collision Resolution")
    assert session["notifications"]["received"]["subcode"] == 7


def test_a_peer_that_knows_nothing_of_us_hangs_up(lab: Lab) -> None:
    lab.daemon("d1", TOR_AS, Neighbour(N2, OWN_AS))
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS)))
    blamed(ours, D1, "closedByPeer", "connection lost in state OpenSent", "it may have no session with us")


def test_a_peer_that_should_dial_and_does_not(lab: Lab) -> None:
    ours = lab.felix("n1", *base("n1", node("n2", ADDRESSES["n2"]), mesh=True))
    session = blamed(ours, N2, "notDialled", "the peer has not connected for", "it is the peer that dials")
    assert session["state"] == "Active"
    assert session["connection"]["weOnlyListen"]


def test_a_passive_side_sees_the_wrong_password_in_what_its_kernel_drops(lab: Lab) -> None:
    """The node with the lower address waits, and the other one signs with a password that is not ours."""
    ours, theirs = lab.stopped_felix("n1"), lab.stopped_felix("n2")
    for each, word in ((ours, PASSWORD), (theirs, ANOTHER)):
        other = node("n2", N2) if each is ours else node("n1", N1)
        documents = base(each.name, other, mesh=True, nodeMeshPasswordFile=secret(each, word))
        each.start(*documents)
    blamed(ours, N2, "md5", "passwords of the two sides differ", "with a wrong signature", within=20)
    blamed(theirs, N1, "md5", "no answer from 10.9.0.11 port 179")


def test_what_went_wrong_is_still_shown_when_the_session_is_back(lab: Lab) -> None:
    router = one_router(lab)
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS), peer(D2, TOR_AS)))
    converged(ours, router)
    router.kill()
    blamed(ours, D1, "refused")
    one_router(lab)
    until(lambda: ours.established(D1), "the session is back", 15)
    session = ours.session(D1)
    assert session["lastErrorCause"] == "refused"
    assert session["lastErrorTime"] <= session["since"]


def test_watching_survives_the_agents_death_and_shows_the_session_come_back(lab: Lab) -> None:
    router = one_router(lab)
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS)))
    converged(ours, router)
    socket, record, said = ours.directory / "run" / "agent.sock", ours.directory / "watched", ours.directory / "said"
    words = ("--socket", str(socket), "bgp", "peers", "--watch", "-o", "json")
    command = [sys.executable, "-m", "felix_py.ctl.main", *words]
    with record.open("wb") as out, said.open("wb") as err, subprocess.Popen(command, stdout=out, stderr=err) as watcher:

        def states() -> list[str]:
            documents = map(json.loads, record.read_text().splitlines())
            return [row["state"] for document in documents for row in document["peers"]]

        try:
            until(lambda: states() == ["Established"], "the session is shown")
            ours.kill()
            until(lambda: "the agent has gone away" in said.read_text(), "its death is said")
            ours.start()
            until(lambda: states()[1:] and states()[-1] == "Established", "the session is shown again", 20)
            assert "felixctl: the agent is back" in said.read_text()
            router.kill()
            until(lambda: states()[-1] != "Established", "the router's death is shown")
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(10) == 0
        finally:
            watcher.kill()
