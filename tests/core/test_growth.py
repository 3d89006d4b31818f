"""Many names, and many who wait: what they take, and that it is given back."""

from __future__ import annotations

import asyncio
import gc
import time

import redis.asyncio
from support.semaphores import fresh_name, keys_of, until
from support.servers import Server

from steindamm import AsyncSemaphore, AsyncTokenBucket
from steindamm.backends.redis.links import ATTRIBUTE

NAMES, AT_ONCE = 2_000, 100
MANY = 1_000
MOST_CONNECTIONS = 3
"""Of a process that waits: one hears of hand-overs, one renews, one asks on behalf of all."""


async def use(client: redis.asyncio.Redis, number: int) -> None:
    common = {"expiry": 0.1, "connection": client}
    await AsyncTokenBucket(f"once {number}", capacity=1, refill_frequency=0.01, **common).acquire()
    async with AsyncSemaphore(f"once {number}", capacity=1, **common):
        pass


async def test_names_that_are_used_once_leave_nothing_behind(valkey: Server) -> None:
    async with redis.asyncio.Redis.from_url(valkey.url, max_connections=20) as client:
        for first in range(0, NAMES, AT_ONCE):
            await asyncio.gather(*(use(client, number) for number in range(first, first + AT_ONCE)))
        gc.collect()
        assert len(getattr(client, ATTRIBUTE).here().limiters) < 10
    deadline = time.monotonic() + 10
    while next(valkey.admin.scan_iter("steindamm:{once *", count=10_000), None) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_thousand_who_wait_take_three_connections_and_are_served_in_their_order(valkey: Server) -> None:
    before = valkey.admin.info("clients")["connected_clients"]
    semaphore = AsyncSemaphore(name=fresh_name(), connection=valkey.url, capacity=1, max_sleep=0, expiry=3)
    permit, order = await semaphore.acquire(), []

    async def wait(number: int) -> None:
        async with semaphore:
            order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(MANY)]
    await until(lambda: valkey.admin.zcard(keys_of(semaphore.name)[2]) == MANY)
    most = 0
    for _ in range(20):
        await asyncio.sleep(0.1)
        most = max(most, valkey.admin.info("clients")["connected_clients"] - before)
    await semaphore.release(permit)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert order == list(range(MANY))
    assert most <= MOST_CONNECTIONS
