"""What no limiter can beat: a lock, a script that does nothing, and slots that Redis hands over by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import redis

from benchmarks.support.use import Use

NOTHING = "return 1"


def lock() -> Use:
    return Use("with lock: {body}", lock=threading.Lock())


def async_lock() -> Use:
    return Use("async with lock: {body}", lock=asyncio.Lock())


def semaphore() -> Use:
    return Use("with semaphore: {body}", semaphore=threading.Semaphore(5))


def async_semaphore() -> Use:
    return Use("async with semaphore: {body}", semaphore=asyncio.Semaphore(5))


def evalsha(url: str) -> Use:
    client = redis.Redis.from_url(url)
    return Use("client.evalsha(sha, 1, 'bare'); {body}", client=client, sha=client.script_load(NOTHING))


def async_evalsha(url: str) -> Use:
    sha = redis.Redis.from_url(url).script_load(NOTHING)
    return Use("await client.evalsha(sha, 1, 'bare'); {body}", client=redis.asyncio.Redis.from_url(url), sha=sha)


def popped_slots(url: str, capacity: int = 5) -> Use:
    """A list of slots; who finds it empty is woken by the server itself. Nobody may die: there are no leases."""
    client, slots = redis.Redis.from_url(url), slots_at(url, capacity)

    @contextmanager
    def popped() -> Iterator[None]:
        client.blpop(slots)
        yield
        client.rpush(slots, 1)

    return Use("with popped(): {body}", popped=popped)


def async_popped_slots(url: str, capacity: int = 5) -> Use:
    client, slots = redis.asyncio.Redis.from_url(url), slots_at(url, capacity)

    @asynccontextmanager
    async def popped() -> AsyncIterator[None]:
        await client.blpop(slots)
        yield
        await client.rpush(slots, 1)

    return Use("async with popped(): {body}", popped=popped)


def slots_at(url: str, capacity: int) -> str:
    """The name of a list of so many slots, which the first who asks makes."""
    client, name = redis.Redis.from_url(url), f"popped:{capacity}"
    if client.set(f"{name}:made", 1, nx=True):
        client.rpush(name, *range(capacity))
    return name
