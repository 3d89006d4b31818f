"""dramatiq.rate_limits: a limiter object a name."""

from __future__ import annotations

from functools import cache
from typing import Any

from dramatiq.rate_limits import BucketRateLimiter, ConcurrentRateLimiter
from dramatiq.rate_limits.backends import RedisBackend


@cache
def backend(url: str) -> RedisBackend:
    return RedisBackend(url=url)


def bucket(name: str, url: str) -> Any:
    limiter = BucketRateLimiter(backend(url), name, limit=5, bucket=60_000)
    with limiter.acquire():
        return limiter


def concurrent(name: str, url: str) -> Any:
    acquired = ConcurrentRateLimiter(backend(url), name, limit=5).acquire()
    acquired.__enter__()
    return acquired
