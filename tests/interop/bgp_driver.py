"""A process of its own that holds one node's sessions, to be killed: `python bgp_driver.py NAME WRAPPER...`."""

import asyncio
import sys

from bgp_lab import settings, tor

from bgp.exabgp_process import BgpService


async def main(name: str, wrapper: tuple[str, ...]) -> None:
    service = BgpService(on_change=lambda: None, wrapper=wrapper)
    service.configure(settings(name, tor()))
    await service.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], tuple(sys.argv[2:])))
