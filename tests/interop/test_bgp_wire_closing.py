"""The child alone, and what a peer is told when its session is closed."""

import asyncio
from ipaddress import IPv4Address

import pytest
from bgp_builders import peer, settings
from bgp_lab import until
from child_parties import FAR, SECOND, configuration, neighbour, talking
from far_end import ROUTE_REFRESH, UPDATE, attribute, plain, prefix, update
from loops import in_a_loop

from bgp import exabgp_codec, exabgp_events
from bgp.exabgp_updates import CloseSession
from bgp.types import (
    AnnounceEndOfRib,
    HoldSessions,
    NotificationSent,
    PeerDown,
    PeerUp,
    Refresh,
    Teardown,
    UpdateFaulty,
)

pytestmark = pytest.mark.interop


@in_a_loop
async def test_a_malformed_update_closes_its_session_and_no_other(namespace: str) -> None:
    async with talking(namespace, count=2) as (hand, far):
        bad = update(plain(FAR[0]) + attribute(0x40, 201, b"abc"), prefix("10.65.2.0/26"))
        fine = update(plain(FAR[0]), prefix("10.65.1.0/26"))
        await far.say(FAR[0], fine, bad, fine)
        await until(lambda: hand.of(CloseSession), "the fault is found")
        (close,) = hand.of(CloseSession)
        hand.child.write(exabgp_codec.close(close.peer, close.code, close.subcode, close.data, close.session))
        answer = await far.until(FAR[0], lambda told: told["sessions"] == 2 and told["up"], "it is up again")
        assert answer["sessions"] == 2
        (sent,) = hand.of(NotificationSent)
        assert (str(sent.peer), sent.notification.code, sent.notification.subcode) == (FAR[0], 3, 2)
        assert hand.of(PeerDown, FAR[0])[0].notified
        assert hand.of(PeerDown, FAR[1]) == []
        assert len(hand.of(UpdateFaulty)) == 1
        # What is said about a session that is over harms not the next.
        hand.child.write(exabgp_codec.close(close.peer, close.code, close.subcode, close.data, close.session))
        await far.say(FAR[0], update(plain(FAR[0]), prefix("10.65.2.0/26")))
        await until(lambda: SECOND in hand.prefixes, "the new session is read")
        assert len(hand.of(PeerDown)) == 1


@in_a_loop
async def test_a_notification_shows_the_attribute_that_is_wrong(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        hand.child.write(exabgp_codec.close(IPv4Address(FAR[0]), 3, 2, b"\x50\xc9\0\3abc"))
        await until(lambda: hand.of(PeerDown), "the session is closed")
        sent = (await far.ask(FAR[0]))["notifications"]
        assert sent[0] == bytes((3, 2)).hex() + "50c90003616263"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="no text"),
        pytest.param("moving the rack", "moving the rack", id="a text"),
        pytest.param("é" * 200, "é" * 127, id="a text that is too long"),
    ],
)
@in_a_loop
async def test_a_cease_carries_words_for_people(namespace: str, text: str, expected: str) -> None:
    async with talking(namespace) as (hand, far):
        data = exabgp_codec.communication(text) if text else b""
        hand.child.write(exabgp_codec.close(IPv4Address(FAR[0]), 6, 2, data))
        await until(lambda: hand.of(PeerDown), "the session is closed")
        (sent,) = hand.of(NotificationSent)
        assert sent.notification.text == expected
        octets = expected.encode()
        carried = bytes((len(octets),)) + octets if text else b""
        assert (await far.ask(FAR[0]))["notifications"][0] == (bytes((6, 2)) + carried).hex()
        await until(lambda: len(hand.of(PeerUp)) == 2, "it is dialled again")


@in_a_loop
async def test_a_session_that_is_closed_and_taken_out_at_once_is_told_the_reason(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        close = exabgp_codec.close(IPv4Address(FAR[0]), 6, 2, exabgp_codec.communication("disabled"))
        hand.child.write(close, configured())
        told = await far.until(FAR[0], lambda told: told["notifications"], "it is told")
        assert told["notifications"] == [(b"\6\2\x08disabled").hex()]
        assert len(hand.of(PeerUp)) == 1


@in_a_loop
async def test_a_session_that_is_to_end_stays_up_until_the_configuration_has_it_no_more(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        part, config = exabgp_codec.lines(HoldSessions((Teardown(IPv4Address(FAR[0]), 2, "disabled"),)), settings())
        hand.child.write(part)
        for number in (1, 2):
            hand.child.write(exabgp_codec.ping(number))
            await until(lambda number=number: exabgp_events.Alive(number) in hand.heard, "the order is read")
        assert not (await far.ask(FAR[0]))["notifications"]
        hand.child.write(config)
        told = await far.until(FAR[0], lambda told: told["notifications"], "it is told")
        assert told["notifications"] == [(b"\6\2\x08disabled").hex()]
        assert len(hand.of(PeerUp)) == 1


@in_a_loop
async def test_a_session_that_was_to_end_ends_so_where_no_configuration_comes_any_more(namespace: str) -> None:
    async with talking(namespace, count=2) as (hand, far):
        part, _ = exabgp_codec.lines(HoldSessions((Teardown(IPv4Address(FAR[0]), 2, "leaving"),)), settings())
        hand.child.write(part)
        hand.child.close("the agent stops")
        told = await far.until(FAR[0], lambda told: not told["up"], "it is closed")
        assert told["notifications"] == [(b"\6\2\x07leaving").hex()]
        told = await far.until(FAR[1], lambda told: not told["up"], "the other one is closed")
        assert told["notifications"] == [], "who is not told keeps our paths"


@in_a_loop
async def test_what_is_wanted_of_a_session_that_is_not_up_harms_no_other(namespace: str) -> None:
    async with talking(namespace, count=1) as (hand, far):
        up, down, unknown = map(IPv4Address, (*FAR[:2], "192.0.2.1"))
        hand.child.write(configured(*FAR[:2]))
        known = settings(*map(peer, (up, down, unknown)))
        for address in (down, unknown):
            for said in (AnnounceEndOfRib(address), Refresh(address), Teardown(address, 4)):
                hand.child.write(*exabgp_codec.lines(said, known))
        hand.child.write(exabgp_codec.ping(1))
        await until(lambda: exabgp_events.Alive(1) in hand.heard, "all that is read")
        hand.child.write(*exabgp_codec.lines(AnnounceEndOfRib(up), known))
        await far.until(FAR[0], lambda told: UPDATE in told["kinds"], "End-of-RIB, in the session that is up")
        assert exabgp_events.CommandRefused() not in hand.heard
        assert (len(hand.of(PeerUp)), hand.of(PeerDown)) == (1, [])


@in_a_loop
async def test_what_is_to_be_said_is_not_forgotten_where_settings_change_in_the_same_moment(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        up = IPv4Address(FAR[0])
        known = settings(peer(up))
        said = (*exabgp_codec.lines(AnnounceEndOfRib(up), known), *exabgp_codec.lines(Refresh(up), known))
        hand.child.write(*said, configured(*FAR[:2]))
        await far.until(FAR[0], lambda told: {UPDATE, ROUTE_REFRESH} <= set(told["kinds"]), "we say it, and ask")
        assert (len(hand.of(PeerUp)), hand.of(PeerDown)) == (1, [])


def configured(*peers: str) -> str:
    return configuration(*(neighbour(each, 64512, 64512) for each in peers))


@in_a_loop
async def test_settings_of_others_touch_no_session_that_is_just_coming_up(namespace: str) -> None:
    async with talking(namespace) as (hand, _):
        for number in range(1, 31):
            hand.child.write(exabgp_codec.close(IPv4Address(FAR[0]), 6, 4, b""))
            while len(hand.of(PeerUp)) == number:
                wanted = len(hand.of(exabgp_events.Configured)) + 2
                hand.child.write(configured(*FAR[:2]), configured(FAR[0]))
                await hand.hears(lambda wanted=wanted: len(hand.of(exabgp_events.Configured)) >= wanted)  # type: ignore[misc]
        reasons = [each.reason for each in hand.of(PeerDown, FAR[0])]
        assert reasons == ["we said Cease: Administrative Reset"] * 30


@in_a_loop
async def test_one_goodbye_is_enough(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        for number in range(40):
            before = len(hand.of(PeerUp))
            hand.child.write(exabgp_codec.close(IPv4Address(FAR[0]), 6, 4, b""))
            await asyncio.sleep(number / 20000)  # the moment itself is the case
            hand.child.write(configured(), configured(FAR[0]))
            await hand.hears(lambda before=before: len(hand.of(PeerUp)) > before)  # type: ignore[misc]
        told = await far.ask(FAR[0])
        assert max(told["goodbyes"]) == 1
