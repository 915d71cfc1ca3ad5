"""Scenarios about sessions: how they come up, what is agreed on, and what keeps them down."""

from ipaddress import IPv4Address

from daemons import PLAIN, Daemon, Neighbour
from felix_node import OWN_AS, FelixNode, peer
from interop_lab import BLOCKS, D1, D1_BLOCK, D2, FAR, N1, TOR_AS, Lab, stays, until

from scenarios.registry import base, converged, one_router, pair, scenario


@scenario("1", "Hold time and keepalives agreed on, 3 s included")
def hold_time(lab: Lab) -> None:
    first = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, hold_time=90))
    second = lab.daemon("d2", TOR_AS, Neighbour(N1, OWN_AS, hold_time=3))
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS, holdTime=3), peer(D2, TOR_AS, holdTime=60)))
    until(lambda: ours.established(D1, D2), "both sessions are up")
    until(lambda: first.session(N1).established and second.session(N1).established, "both daemons say so")
    assert [router.session(N1).hold_time for router in (first, second)] == [3, 3]
    assert [router.session(N1).keepalive for router in (first, second)] == [1, 1]
    timers = [ours.session(address)["holdTime"] for address in (D1, D2)]
    assert [(each["offered"], each["received"], each["negotiated"]) for each in timers] == [(3, 90, 3), (60, 3, 3)]
    # Longer than the hold time: keepalives must have come, both ways, or the sessions are gone.
    stays(lambda: ours.established(D1, D2), 3.5, "both sessions are up")
    assert [ours.session(address)["flaps"] for address in (D1, D2)] == [0, 0]


@scenario("2", "AS numbers of four octets, on both sides")
def four_octets(lab: Lab) -> None:
    theirs, own = 4200000001, 4200000002
    router = one_router(lab, asn=theirs, own_as=own)
    ours = lab.felix("n1", *base("n1", peer(D1, theirs), asn=own))
    converged(ours, router)
    path = ours.path(D1_BLOCK)
    assert path is not None
    assert path["asPath"] == [theirs]
    assert router.routes()[BLOCKS["n1"]][0].attributes.as_path == (own,)


@scenario("10", "TCP MD5 (RFC 2385): the right password, and a wrong one")
def password(lab: Lab) -> None:
    ours, router = _passwords(lab)
    converged(ours, router)
    stays(lambda: not ours.established(D2), 1, "the session with the wrong password is down")
    assert WRONG not in ours.process.log() + (ours.directory / "state" / "journal.jsonl").read_text()


@scenario(
    "10b", "TCP MD5: a wrong password is suspected in words", pending="a session without an answer gives no reason yet"
)
def password_suspected(lab: Lab) -> None:
    ours, _ = _passwords(lab)
    until(lambda: "MD5" in (ours.session(D2)["lastError"] or ""), "our side says what it suspects", within=5)


RIGHT, WRONG = "the-right-one", "a-wrong-one"


def _passwords(lab: Lab) -> tuple[FelixNode, Daemon]:
    """Return a node of ours that has the right password for the first of two routers, which it returns as well."""
    router = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, password=RIGHT))
    lab.daemon("d2", TOR_AS, Neighbour(N1, OWN_AS, password=RIGHT))
    router.announce({D1_BLOCK: PLAIN})
    ours = lab.stopped_felix("n1")
    peers = []
    for address, word in ((D1, RIGHT), (D2, WRONG)):
        secret = ours.directory / word
        secret.touch(mode=0o600)
        secret.write_text(word)
        peers.append(peer(address, TOR_AS, passwordFile=str(secret)))
    ours.start(*base("n1", *peers))
    return ours, router


@scenario("11", "Both sides dial at the same moment: one session, and it stays")
def collision(lab: Lab) -> None:
    ours, router = lab.stopped_felix("n1"), None

    def start_router() -> None:
        nonlocal router
        router = one_router(lab, passive=False)

    lab.together(start_router, lambda: ours.start(*base("n1", peer(D1, TOR_AS))))
    assert router is not None
    converged(ours, router)
    flaps = ours.session(D1)["flaps"]
    stays(lambda: ours.established(D1) and ours.session(D1)["flaps"] == flaps, 1.5, "one session, which is up")
    lab.note(f"{flaps} flaps")


@scenario("12", "The daemon waits, or we do: who dials is known")
def passive(lab: Lab) -> None:
    waits = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, passive=True))
    dials = lab.daemon("d2", TOR_AS, Neighbour(N1, OWN_AS, passive=False))
    # Nobody listens on port 1790, so it can only be the second router that connects.
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS), peer(f"{D2}:1790", TOR_AS)))
    until(lambda: ours.established(D1, D2), "both sessions are up", within=15)
    until(lambda: waits.session(N1).established and dials.session(N1).established, "both daemons say so")
    assert [ours.session(each)["connection"]["dialledBy"] for each in (D1, D2)] == ["us", "the peer"]


@scenario("13", "Multihop: the router is one hop away")
def multihop(lab: Lab) -> None:
    router = lab.daemon("far", TOR_AS, Neighbour(N1, OWN_AS, hops=4))
    router.announce({D1_BLOCK: PLAIN})
    ours = lab.felix("n1", *base("n1", peer(FAR, TOR_AS)))
    until(lambda: ours.established(FAR), "the session is up")
    until(lambda: router.has(BLOCKS["n1"]), "our block is in the router's table")
    until(lambda: ours.path(D1_BLOCK), "the router's block is in our Adj-RIB-In")
    path = ours.path(D1_BLOCK)
    assert path is not None
    assert (path["nextHop"], path["accepted"], path["best"]) == (str(FAR), True, True)


@scenario("13b", "GTSM: a TTL below 255 is not taken (RFC 5082)")
def ttl_security(lab: Lab) -> None:
    near = lab.daemon("d1", TOR_AS, Neighbour(N1, OWN_AS, ttl_security=True))
    plain = lab.daemon("d2", TOR_AS, Neighbour(N1, OWN_AS))
    near.announce({D1_BLOCK: PLAIN})
    # The second router sends packets with a TTL of its own choice, which for eBGP on a wire is 1 or 64.
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS, ttlSecurity=1), peer(D2, TOR_AS, ttlSecurity=1)))
    converged(ours, near)
    stays(lambda: not ours.established(D2), 1, "the session without GTSM is down")
    assert not plain.session(N1).established


@scenario("26", "Administrative shutdown, with the operator's words (RFC 9003)")
def shutdown(lab: Lab) -> None:
    ours, router = pair(lab)
    router.shut(N1, "moving the rack")
    until(lambda: not ours.forwards(D1_BLOCK), "the router's block is out of our kernel", within=2)
    until(lambda: ours.session(D1)["lastNotification"]["received"], "the reason is known")
    assert ours.session(D1)["lastNotification"]["received"] == 'Cease: Administrative Shutdown: "moving the rack"'
    router.open(N1)
    converged(ours, router)


@scenario("27", "A wrong AS number on one side: no session, and both numbers in the reason")
def wrong_as(lab: Lab) -> None:
    router = one_router(lab)
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS + 1)))
    until(lambda: "AS" in (ours.session(D1)["lastError"] or ""), "our side says why")
    assert not ours.established(D1)
    assert not router.session(N1).established
    sentence = ours.session(D1)["lastError"]
    assert str(TOR_AS) in sentence
    assert str(TOR_AS + 1) in sentence
    ours.apply(*base("n1", peer(D1, TOR_AS)))
    converged(ours, router)


@scenario("28", "A router with our own BGP identifier: refused in our AS (RFC 6286)")
def same_identifier(lab: Lab) -> None:
    router = lab.daemon("d1", OWN_AS, Neighbour(N1, OWN_AS), router_id=IPv4Address(str(N1)))
    ours = lab.felix("n1", *base("n1", peer(D1, OWN_AS)))
    until(lambda: "dentifier" in (ours.session(D1)["lastError"] or ""), "our side says why")
    stays(lambda: not ours.established(D1), 0.5, "no session")
    assert not router.session(N1).established


def _sends_some_anyway(lab: Lab) -> None:
    ours, _ = pair(lab, capabilities=False)
    assert ours.session(D1)["capabilities"]["received"] != []


@scenario(
    "29",
    "A router whose OPEN carries no capability",
    cannot={"gobgp": "it has no setting for it, and sends capabilities whatever is asked"},
    refuse=_sends_some_anyway,
)
def no_capabilities(lab: Lab) -> None:
    ours, router = pair(lab, capabilities=False)
    assert ours.session(D1)["capabilities"]["received"] == []
    assert ours.session(D1)["capabilities"]["common"] == []
    assert router.routes()[BLOCKS["n1"]][0].attributes.as_path == (OWN_AS,)
    _without_restart(ours, router)


@scenario(
    "29b",
    "The same router, and our AS number has four octets: AS_TRANS and AS4_PATH (RFC 6793)",
    cannot={"gobgp": "it has no setting for it, and sends capabilities whatever is asked"},
    refuse=_sends_some_anyway,
)
def two_octets(lab: Lab) -> None:
    own = 4200000002
    # FRR finds the number in our OPEN although it offers nothing itself, and does not read AS4_PATH then; BIRD does.
    expected, seen = (own, AS_TRANS) if lab.kind == "frr" else (AS_TRANS, own)
    router = one_router(lab, own_as=expected, capabilities=False)
    ours = lab.felix("n1", *base("n1", peer(D1, TOR_AS), asn=own))
    converged(ours, router)
    assert router.routes()[BLOCKS["n1"]][0].attributes.as_path == (seen,)
    path = ours.path(D1_BLOCK)
    assert path is not None
    assert path["asPath"] == [TOR_AS]


AS_TRANS = 23456
"""What stands for an AS number of four octets where there is room for two (RFC 6793 section 9)."""


def _without_restart(ours: FelixNode, router: Daemon) -> None:
    router.kill()
    until(lambda: not ours.forwards(D1_BLOCK), "a peer without graceful restart keeps nothing", within=2)
