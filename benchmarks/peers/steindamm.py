"""steindamm: this project's, and, on another path, the published library of the same name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import redis
import redis.asyncio

from benchmarks.support.use import Use
from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.background import to_its_end

NEVER_REFUSING = {"capacity": 1e6, "refill_amount": 1e6}
RATE = "with limiter: {body}"
ASYNC_RATE = "async with limiter: {body}"


def bucket() -> Use:
    return Use(RATE, limiter=SyncTokenBucket.create(name="api", **NEVER_REFUSING))


def async_bucket() -> Use:
    return Use(ASYNC_RATE, limiter=AsyncTokenBucket.create(name="api", **NEVER_REFUSING))


def semaphore() -> Use:
    return Use(RATE, limiter=SyncSemaphore.create(name="slots", capacity=5))


def async_semaphore() -> Use:
    return Use(ASYNC_RATE, limiter=AsyncSemaphore.create(name="slots", capacity=5))


def redis_bucket(url: str, **settings: Any) -> Use:
    connection = redis.Redis.from_url(url)
    return Use(RATE, limiter=SyncTokenBucket.create("api", connection=connection, **(settings or NEVER_REFUSING)))


def async_redis_bucket(url: str, **settings: Any) -> Use:
    connection = redis.asyncio.Redis.from_url(url)
    return Use(
        ASYNC_RATE, limiter=AsyncTokenBucket.create("api", connection=connection, **(settings or NEVER_REFUSING))
    )


def redis_semaphore(url: str, capacity: int = 5) -> Use:
    connection = redis.Redis.from_url(url)
    return Use(RATE, limiter=SyncSemaphore.create("slots", capacity=capacity, connection=connection))


def async_redis_semaphore(url: str, capacity: int = 5) -> Use:
    connection = redis.asyncio.Redis.from_url(url)
    return Use(ASYNC_RATE, limiter=AsyncSemaphore.create("slots", capacity=capacity, connection=connection))


def unshared(url: str) -> Use:
    """A call of its own for each caller: what sharing is measured against."""
    limiter = SyncTokenBucket("api", connection=redis.Redis.from_url(url), **NEVER_REFUSING)
    backend = limiter._backend
    backend.ask = lambda request: backend._call([request])[0]
    return Use(RATE, limiter=limiter)


def async_unshared(url: str) -> Use:
    """The same for tasks. One that is cancelled loses the token that it is just being granted."""
    return _async_alone(url, lambda call: call)


def async_unshared_and_safe(url: str) -> Use:
    """The same, but each call is a task of its own that goes on to its end, as it must where nothing may get lost."""
    return _async_alone(url, to_its_end)


def _async_alone(url: str, awaited_as: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]) -> Use:
    limiter = AsyncTokenBucket("api", connection=redis.asyncio.Redis.from_url(url), **NEVER_REFUSING)
    backend = limiter._backend

    async def ask(request: Any) -> Any:
        return backend._read(await awaited_as(backend._call([request])))[0]

    backend.ask = ask
    return Use(ASYNC_RATE, limiter=limiter)
