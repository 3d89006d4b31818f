"""pyrate-limiter: a limiter and a bucket a name."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
from pyrate_limiter import Limiter, Rate, RedisStateStore, StateBucket, TokenBucket


@cache
def connection(url: str) -> Any:
    return redis.Redis.from_url(url)


def bucket(name: str, url: str) -> Any:
    store = RedisStateStore(connection(url), name) if url else None
    limiter = Limiter(StateBucket([Rate(5, 60_000 if url else 1_000)], TokenBucket(), store))
    limiter.try_acquire(name)
    return limiter
