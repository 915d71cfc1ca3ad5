"""When a node counts as having a network: once, and when what it waits for is there."""

import asyncio
from ipaddress import IPv4Address, IPv4Network

from loops import in_a_loop

from bgp import waiting
from bgp.peering import PeerSettings
from bgp.speaker import Speaker, SpeakerSettings
from felix_py.arrival import LOOK, Arrival


@in_a_loop
async def test_it_is_said_once_and_when_it_is_so() -> None:
    there: list[bool] = []
    said: list[bool] = []
    heard = asyncio.Event()

    def then() -> None:
        said.append(True)
        heard.set()

    arrival = Arrival(lambda: bool(there), then)
    task = asyncio.create_task(arrival.run())
    arrival.look()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert said == []
    there.append(True)
    arrival.look()
    async with asyncio.timeout(LOOK / 2):  # of what happens it hears at once
        await heard.wait()
    arrival.look()
    await asyncio.sleep(0)
    assert said == [True]
    task.cancel()


def test_a_peer_that_says_nothing_is_waited_for_ten_seconds() -> None:
    speaker = Speaker(settings(PeerSettings(IPv4Address("172.30.1.12"), 64512, "a2", "mesh")), now=100.0)
    assert not waiting.arrived(speaker.sessions.values(), since=100.0, now=109.9)
    assert waiting.arrived(speaker.sessions.values(), since=100.0, now=110.0)


def test_without_peers_nothing_is_waited_for() -> None:
    speaker = Speaker(settings(), now=100.0)
    assert waiting.arrived(speaker.sessions.values(), since=100.0, now=100.0)


def settings(*peers: PeerSettings) -> SpeakerSettings:
    return SpeakerSettings(
        local_address=IPv4Address("172.30.1.11"),
        router_id=IPv4Address("172.30.1.11"),
        asn=64512,
        listen_port=179,
        peers=peers,
        announcements=frozenset(),
        accept_within=(IPv4Network("10.0.0.0/8"),),
    )
