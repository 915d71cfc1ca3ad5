"""Whichever comes first ends the wait, the others end with it, and no failure is lost."""

import asyncio

import pytest
from loops import in_a_loop

from felix_py.first_done import first_done


async def forever(ended: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(name)


async def at_once() -> None:
    """Be done."""


async def failing() -> None:
    raise ValueError("as it should")


@in_a_loop
async def test_the_others_have_ended() -> None:
    ended: list[str] = []
    await first_done(forever(ended, "a"), at_once(), forever(ended, "b"))
    assert ended == ["a", "b"]


@in_a_loop
async def test_a_failure_is_raised_and_the_others_have_ended() -> None:
    ended: list[str] = []
    with pytest.raises(ValueError, match="as it should"):
        await first_done(forever(ended, "a"), failing())
    assert ended == ["a"]


@in_a_loop
async def test_who_waits_may_be_cancelled() -> None:
    ended: list[str] = []
    waiting = asyncio.create_task(first_done(forever(ended, "a"), forever(ended, "b")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["a", "b"]
