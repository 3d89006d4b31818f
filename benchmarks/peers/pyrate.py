"""pyrate-limiter: its GCRA and its token bucket, which keep one state a name."""

from __future__ import annotations

import redis
import redis.asyncio
from pyrate_limiter import GCRA, Limiter, Rate, RedisStateStore, StateBucket, TokenBucket

from benchmarks.support.use import Use

ALGORITHMS = {"gcra": GCRA, "token bucket": TokenBucket}
ACQUIRE = "limiter.try_acquire('api'); {body}"
ASYNC_ACQUIRE = "await limiter.try_acquire_async('api'); {body}"
PERIOD = 1_000
NEVER_REFUSING = Rate(1_000_000, PERIOD)


def local(algorithm: str) -> Use:
    return Use(ACQUIRE, limiter=Limiter(StateBucket([NEVER_REFUSING], ALGORITHMS[algorithm]())))


def async_local(algorithm: str) -> Use:
    return Use(ASYNC_ACQUIRE, limiter=Limiter(StateBucket([NEVER_REFUSING], ALGORITHMS[algorithm]())))


def on_redis(url: str, algorithm: str) -> Use:
    store = RedisStateStore(redis.Redis.from_url(url), "api")
    return Use(ACQUIRE, limiter=Limiter(StateBucket([NEVER_REFUSING], ALGORITHMS[algorithm](), store)))


def async_on_redis(url: str, algorithm: str) -> Use:
    store = RedisStateStore(redis.asyncio.Redis.from_url(url), "api")
    return Use(ASYNC_ACQUIRE, limiter=Limiter(StateBucket([NEVER_REFUSING], ALGORITHMS[algorithm](), store)))


def waiting(url: str, algorithm: str, amount: int, burst: int) -> Use:
    store = RedisStateStore(redis.Redis.from_url(url), "api")
    bucket = StateBucket([Rate(amount, PERIOD, burst=burst)], ALGORITHMS[algorithm](), store)
    return Use(ACQUIRE, limiter=Limiter(bucket, buffer_ms=0))
