"""Our speaker alone, without an agent: prints how many best paths it has, whenever that has changed."""

import asyncio
import sys
from ipaddress import IPv4Address, IPv4Network

from bgp_parties import PATIENCE, SOURCE, TARGET

from bgp.exabgp_process import BgpService
from bgp.peering import PeerSettings
from bgp.speaker import SpeakerSettings


async def main() -> None:
    def told() -> None:
        sys.stdout.write(f"paths {len(service.best_paths())}\n")
        sys.stdout.flush()

    service = BgpService(on_change=told)
    service.configure(
        SpeakerSettings(
            local_address=IPv4Address(TARGET),
            router_id=IPv4Address(TARGET),
            asn=64512,
            listen_port=179,
            peers=(PeerSettings(IPv4Address(SOURCE), 64512, "source", "global", passive=True),),
            announcements=frozenset(),
            accept_within=(IPv4Network("10.0.0.0/8"),),
        )
    )
    async with asyncio.timeout(PATIENCE):
        await service.run()


if __name__ == "__main__":
    asyncio.run(main())
