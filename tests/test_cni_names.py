"""Names that one command at a time may be about: first come, first served, whatever thread it comes from."""

import asyncio

import pytest
from loops import in_a_loop

from felix_py.cni.names import Names

C1, C2, BOTH = frozenset({"c1"}), frozenset({"c2"}), frozenset({"c1", "c2"})


async def begun(names: Names, wanted: frozenset[str], done: asyncio.Event) -> asyncio.Task[None]:
    """Return a task that has names, or waits for them, until told to end."""

    async def hold() -> None:
        async with names.held(wanted):
            await done.wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    return task


@in_a_loop
async def test_whoever_shares_no_name_waits_for_nobody() -> None:
    names = Names()
    assert names.take(C1)
    assert not names.take(BOTH)
    assert names.take(C2)
    names.give_back(C1)
    assert names.take(C1)


@in_a_loop
async def test_who_waits_in_the_loop_is_served_when_another_thread_gives_back() -> None:
    names, done = Names(), asyncio.Event()
    names.take(C1)
    waiting = await begun(names, BOTH, done)
    assert not names.take(C2), "nobody overtakes who waits"
    await asyncio.to_thread(names.give_back, C1)
    done.set()
    async with asyncio.timeout(5):
        await waiting
    assert names.take(BOTH)


@in_a_loop
async def test_who_is_cancelled_while_it_waits_gets_nothing() -> None:
    names, done = Names(), asyncio.Event()
    names.take(C1)
    await cancelled(await begun(names, C1, done))
    assert not names.take(C1)
    names.give_back(C1)
    assert names.take(C1)


@in_a_loop
async def test_who_is_cancelled_as_it_is_served_keeps_nothing() -> None:
    names, done = Names(), asyncio.Event()
    names.take(C1)
    waiting = await begun(names, C1, done)
    names.give_back(C1)
    await cancelled(waiting)
    assert names.take(C1)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
