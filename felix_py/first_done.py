"""Waiting for whichever of several things comes first."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_done(*works: Coroutine[Any, Any, object]) -> None:
    """Return when the first of these is done; the others are given up, and have ended by then.

    Raises:
        Exception: what the first one raised.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
