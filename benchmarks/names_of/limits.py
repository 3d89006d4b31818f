"""limits: one strategy, a key a name."""

from __future__ import annotations

from functools import cache
from typing import Any

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter


@cache
def item(url: str) -> RateLimitItemPerSecond:
    """On Redis the states must not go while others are made."""
    return RateLimitItemPerSecond(5, 60 if url else 1)


@cache
def limiter(url: str) -> FixedWindowRateLimiter:
    return FixedWindowRateLimiter(RedisStorage(url) if url else MemoryStorage())


def fixed_window(name: str, url: str) -> Any:
    limiter(url).hit(item(url), name)
