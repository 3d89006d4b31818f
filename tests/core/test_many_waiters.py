"""A hundred who wait for one semaphore through a client of ten connections: all get in, in their order."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import redis
import redis.asyncio
from support.semaphores import fresh_name, keys_of, until
from support.servers import Server

from steindamm import AsyncSemaphore, SyncSemaphore

MANY = 100


def in_line(server: Server, name: str) -> int:
    return int(server.admin.zcard(keys_of(name)[2]))


def test_threads(valkey: Server) -> None:
    with redis.Redis.from_url(valkey.url, max_connections=10) as client:
        semaphore = SyncSemaphore(name=fresh_name(), connection=client, capacity=1, max_sleep=0)
        permit, order = semaphore.acquire(), []

        def use(number: int) -> None:
            with semaphore:
                order.append(number)

        threads = []
        for number in range(MANY):
            threads.append(threading.Thread(target=use, args=(number,)))
            threads[-1].start()
            deadline = time.monotonic() + 10
            while in_line(valkey, semaphore.name) <= number:
                assert time.monotonic() < deadline
                time.sleep(0.0005)
        semaphore.release(permit)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert order == list(range(MANY))


async def test_tasks(valkey: Server) -> None:
    client = redis.asyncio.Redis.from_url(valkey.url, max_connections=10)
    semaphore = AsyncSemaphore(name=fresh_name(), connection=client, capacity=1, max_sleep=0)
    permit, order = await semaphore.acquire(), []

    async def use(number: int) -> None:
        async with semaphore:
            order.append(number)

    tasks = [asyncio.create_task(use(number)) for number in range(MANY)]
    await until(lambda: in_line(valkey, semaphore.name) == MANY)
    await semaphore.release(permit)
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert order == list(range(MANY))
    await client.aclose()


@pytest.mark.parametrize("capacity", [1, 7])
async def test_and_more_than_a_call_holds(valkey: Server, capacity: int) -> None:
    semaphore = AsyncSemaphore(name=fresh_name(), connection=valkey.url, capacity=capacity, max_sleep=0)
    running, most = 0, 0

    async def use() -> None:
        nonlocal running, most
        async with semaphore:
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.wait_for(asyncio.gather(*(use() for _ in range(300))), 30)
    assert most == capacity
