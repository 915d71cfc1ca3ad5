"""The child alone, between a hand that writes its commands and speakers: what is said arrives as it was said."""

import asyncio
import json
import struct
import sys
from ipaddress import IPv4Address

import pytest
from bgp_builders import settings
from bgp_lab import until
from child_parties import ENVIRONMENT, FAR, FIRST, SECOND, Dialled, Hand, neighbour, talking
from far_end import KEEPALIVE, NOTIFICATION, ROUTE_REFRESH, UPDATE, attribute, message, opened, plain, prefix, update
from loops import in_a_loop

from bgp import exabgp_codec, exabgp_events
from bgp.child_process import Child
from bgp.types import EndOfRib, Family, PeerUp, Refresh, RefreshHeard, RefreshStage, UpdateReceived

pytestmark = pytest.mark.interop


@in_a_loop
async def test_updates_come_as_they_were_said(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        await far.say(FAR[0], update(plain(FAR[0]), prefix("10.65.1.0/26")), update())
        await far.say(FAR[0], update(withdrawn=prefix("10.65.1.0/26")), update(attribute(0x80, 15, b"\0\2\1")))
        await until(lambda: len(hand.of(EndOfRib)) == 2, "both families have ended")
        one, end, gone, end6 = hand.heard[-4:]
        assert (one.announced, gone.withdrawn) == ((FIRST,), (FIRST,))
        assert [end.family, end6.family] == [Family.IPV4_UNICAST, Family.IPV6_UNICAST]


@in_a_loop
async def test_who_offers_nothing_is_told_and_tells_ipv4_with_as_numbers_of_two_octets(namespace: str) -> None:
    """RFC 4760 section 8, and RFC 6793 section 4.2.2: AS_TRANS stands in AS_PATH, and AS4_PATH has the whole number."""
    own, farther = 4200000002, 4200000003
    async with talking(namespace, asn=64500, own_asn=own, silent=True) as (hand, far):
        hand.child.write(f"announce attributes next-hop self as-path [ {own} {farther} 7 ] nlri 10.65.1.0/26")
        told = await far.until(FAR[0], lambda told: told["updates"], "our block is told")
        short = attribute(0x40, 2, b"\2\3" + bytes.fromhex("5ba05ba00007"))
        whole = attribute(0xC0, 17, b"\2\3" + struct.pack("!III", own, farther, 7))
        assert short.hex() in told["updates"][0]
        assert whole.hex() in told["updates"][0]
        path = attribute(0x40, 1, b"\0") + attribute(0x40, 2, b"\2\2" + bytes.fromhex("fbf45ba0"))
        path += attribute(0x40, 3, IPv4Address(FAR[0]).packed)
        path += attribute(0xC0, 17, b"\2\2" + struct.pack("!II", 64500, farther))
        await far.say(FAR[0], update(path, prefix("10.65.2.0/26")))
        await until(lambda: hand.of(UpdateReceived), "the far end's block is heard")
        (heard,) = hand.of(UpdateReceived)
        assert (heard.announced, heard.attributes.as_path) == ((SECOND,), (64500, farther))


@in_a_loop
async def test_of_two_connections_that_a_peer_opens_before_it_is_up_the_newer_wins(namespace: str) -> None:
    """Ours is the higher identifier (RFC 4271 section 6.8), which decides nothing between two of the peer's."""
    text = "process agent { run /bin/true; encoder json; }\n" + neighbour(FAR[0], 64512, 64512)
    child = await Child.start(
        ("ip", "netns", "exec", namespace, sys.executable, "-P", "-m", "bgp.exabgp_start"), ENVIRONMENT
    )
    hand, dialled = Hand(child), list[Dialled]()

    async def dial(first_words: bytes) -> Dialled:
        dialled.append(await Dialled.to_us(namespace, first_words))
        return dialled[-1]

    following = asyncio.create_task(hand.follow())
    try:
        child.write(f"%%config {json.dumps(text.replace('manual-eor true;', 'manual-eor true; passive true;'))}")
        await until(lambda: any(isinstance(each, exabgp_events.Configured) for each in hand.heard), "it listens")
        first = await dial(opened(64512, FAR[0]))
        await first.hears(KEEPALIVE)  # it waits for ours, which does not come
        second = await dial(opened(64512, FAR[0]))
        assert await first.hears(NOTIFICATION) == bytes((6, 7))
        await second.hears(KEEPALIVE)
        second.writer.write(message(KEEPALIVE))
        await until(lambda: hand.of(PeerUp), "the second one is a session")
        third = await dial(b"")  # what is sent and not read would make the kernel reset the connection
        await third.ends()
        second.writer.write(message(UPDATE, update(plain(FAR[0]), prefix("10.65.1.0/26"))))
        await until(lambda: FIRST in hand.prefixes, "the second one is still up")
        assert len(hand.of(PeerUp)) == 1
    finally:
        for each in dialled:
            each.writer.transport.abort()
        child.kill("the test is over")
        await child.end()
        await following


@in_a_loop
async def test_a_message_in_small_pieces_is_a_message(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        data = message(UPDATE, update(plain(FAR[0]), prefix("10.65.1.0/26"))) + message(UPDATE, update())
        for start in range(0, len(data), 7):
            await far.ask(FAR[0], say=data[start : start + 7].hex())
        await until(lambda: hand.of(EndOfRib), "the second message is there")
        assert hand.prefixes == {FIRST}


@in_a_loop
async def test_route_refresh_in_both_directions(namespace: str) -> None:
    async with talking(namespace) as (hand, far):
        hand.child.write("announce attributes next-hop self nlri 10.65.1.0/26")
        await far.until(FAR[0], lambda told: told["kinds"].count(UPDATE) == 1, "our block is told")
        hand.child.write(*exabgp_codec.lines(Refresh(IPv4Address(FAR[0])), settings()))
        await far.until(FAR[0], lambda told: ROUTE_REFRESH in told["kinds"], "we ask")
        for subtype in (1, 2, 0):
            await far.say(FAR[0], bytes((0, 1, subtype, 1)), kind=ROUTE_REFRESH)
        await until(lambda: len(hand.of(RefreshHeard)) == 3, "all three are told")
        stages = [each.stage for each in hand.of(RefreshHeard)]
        assert stages == [RefreshStage.BEGIN, RefreshStage.END, RefreshStage.REQUEST]
        told = await far.until(FAR[0], lambda told: told["kinds"].count(UPDATE) == 2, "we say it again, once")
        # One that we sent, and the beginning and the end of what was asked for (RFC 7313).
        assert told["kinds"].count(ROUTE_REFRESH) == 3
