"""The garbage collector closes what nobody holds any more, at any moment: even within a decision of the same thread."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support.semaphores import until
from support.servers import Server

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket, all_of
from steindamm.backends.memory import MEMORY


def closed_within_a_decision(block: Any) -> None:
    """What the collector does when a decision's own objects are one too many."""
    with MEMORY.lock:
        block.close()


async def test_a_task_that_waits_leaves_the_line() -> None:
    watch = SyncSemaphore("garbage in line", capacity=1)
    with watch:
        waiting = AsyncSemaphore("garbage in line", capacity=1).acquire()
        waiting.send(None)
        assert watch.state().waiters == 1
        closed_within_a_decision(waiting)
        await until(lambda: watch.state().waiters == 0)


def block(limiter: Any) -> Iterator[None]:
    with limiter:
        yield


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "with a bucket"])
async def test_a_block_gives_its_slot_back(is_joined: bool) -> None:
    semaphore = SyncSemaphore(f"garbage, joined: {is_joined}", capacity=1)
    held = block(all_of(semaphore, SyncTokenBucket("garbage beside it")) if is_joined else semaphore)
    next(held)
    assert semaphore.try_acquire() is None
    closed_within_a_decision(held)
    await until(lambda: semaphore.state().holders == ())
    assert semaphore.try_acquire() is not None


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "with a bucket"])
async def test_a_block_on_redis_gives_its_slot_back(valkey: Server, *, is_joined: bool) -> None:
    connection = redis.Redis.from_url(valkey.url)
    semaphore = SyncSemaphore("garbage", connection=connection)
    limiter = all_of(semaphore, SyncTokenBucket("beside it", connection=connection)) if is_joined else semaphore
    held = block(limiter)
    next(held)
    with limiter._backend._sharing._calling:
        held.close()
    await until(lambda: semaphore.state().holders == ())
    connection.close()


async def test_a_block_of_a_task_gives_its_slot_back() -> None:
    semaphore = AsyncSemaphore("garbage of a task", capacity=1)

    async def forgotten() -> None:
        async with semaphore:
            await Forever()

    task = forgotten()
    task.send(None)
    assert await semaphore.try_acquire() is None
    closed_within_a_decision(task)
    watch = SyncSemaphore("garbage of a task", capacity=1)
    await until(lambda: watch.state().holders == ())


class Forever:
    """Something that is never there."""

    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "with a bucket"])
def test_a_task_whose_loop_was_closed_gives_its_slot_back(*, is_joined: bool) -> None:
    semaphore = AsyncSemaphore(f"of a loop that was closed, joined: {is_joined}", capacity=1)
    limiter: Any = all_of(semaphore, AsyncTokenBucket("beside it")) if is_joined else semaphore
    loop = asyncio.new_event_loop()

    async def hold() -> None:
        async with limiter:
            await asyncio.Event().wait()

    async def begin() -> None:
        task = asyncio.create_task(hold())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        assert (await semaphore.state()).held == 1

    loop.run_until_complete(begin())
    loop.close()
    del loop
    gc.collect()
    assert asyncio.run(semaphore.state()).held == 0
