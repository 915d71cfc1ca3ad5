"""What the process that speaks BGP says where the agent's container has too few capabilities."""

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest
from loops import in_a_loop

from bgp.exabgp_process import BgpService
from bgp.peering import PeerSettings
from bgp.speaker import SpeakerSettings

pytestmark = pytest.mark.netns

SETTINGS = SpeakerSettings(
    local_address=IPv4Address("127.0.0.1"),
    router_id=IPv4Address("127.0.0.1"),
    asn=64512,
    listen_port=0,
    peers=(PeerSettings(IPv4Address("127.0.0.2"), 64512, "nobody", "global", passive=True),),
    announcements=frozenset(),
    accept_within=(IPv4Network("10.0.0.0/8"),),
)


@pytest.mark.parametrize(
    ("dropped", "problem"),
    [
        pytest.param("-setuid", "give the agent's container the capabilities SETUID and SETGID", id="no SETUID"),
        pytest.param("-setgid", "give the agent's container the capabilities SETUID and SETGID", id="no SETGID"),
        pytest.param("-bpf", None, id="all that it needs"),
    ],
)
@in_a_loop
async def test_a_container_without_rights_is_told_which(dropped: str, problem: str | None) -> None:
    heard = asyncio.Event()
    service = BgpService(on_change=heard.set, wrapper=("setpriv", f"--bounding-set={dropped}"))
    service.configure(SETTINGS)
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(30):
            # The first change is that of the settings; the second one is the process's own word.
            for _ in range(2):
                await heard.wait()
                heard.clear()
        assert service.problem is None if problem is None else problem in (service.problem or "")
    finally:
        await service.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
