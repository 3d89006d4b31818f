"""limits: its fixed window, the fastest of its strategies."""

from __future__ import annotations

import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage as AsyncMemoryStorage
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as AsyncFixedWindow
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from benchmarks.support.use import Use

NEVER_REFUSING = RateLimitItemPerSecond(1_000_000)
HIT = "limiter.hit(item, 'api'); {body}"
ASYNC_HIT = "await limiter.hit(item, 'api'); {body}"
STRATEGIES = {
    "fixed": FixedWindowRateLimiter,
    "moving": MovingWindowRateLimiter,
    "sliding": SlidingWindowCounterRateLimiter,
}
POLL = 0.01
"""Seconds between two tries; a hit tells no wait that would be enough."""


def fixed_window() -> Use:
    return Use(HIT, limiter=FixedWindowRateLimiter(MemoryStorage()), item=NEVER_REFUSING)


def async_fixed_window() -> Use:
    return Use(ASYNC_HIT, limiter=AsyncFixedWindow(AsyncMemoryStorage()), item=NEVER_REFUSING)


def redis_fixed_window(url: str) -> Use:
    return Use(HIT, limiter=FixedWindowRateLimiter(RedisStorage(url)), item=NEVER_REFUSING)


def async_redis_fixed_window(url: str) -> Use:
    storage = AsyncRedisStorage(f"async+{url}", implementation="redispy")
    return Use(ASYNC_HIT, limiter=AsyncFixedWindow(storage), item=NEVER_REFUSING)


def waiting(url: str, strategy: str, amount: int) -> Use:
    """The same for those who wait: tried again until it passes."""
    limiter: RateLimiter = STRATEGIES[strategy](RedisStorage(url))
    item = RateLimitItemPerSecond(amount)

    def wait() -> None:
        while not limiter.hit(item, "api"):
            time.sleep(POLL)

    return Use("wait(); {body}", wait=wait)
