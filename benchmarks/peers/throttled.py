"""throttled-py: its token bucket, and GCRA."""

from __future__ import annotations

from throttled import Throttled, per_sec
from throttled import asyncio as athrottled
from throttled.store import MemoryStore, RedisStore

from benchmarks.support.use import Use

LIMIT = "limiter.limit(); {body}"
ASYNC_LIMIT = "await limiter.limit(); {body}"
TOKEN_BUCKET = "token_bucket"
NEVER_REFUSING = per_sec(1_000_000)
PATIENCE = 60.0
"""Seconds; without it a limiter refuses at once."""


def local(using: str = TOKEN_BUCKET) -> Use:
    return Use(LIMIT, limiter=Throttled("api", using=using, quota=NEVER_REFUSING, store=MemoryStore()))


def async_local(using: str = TOKEN_BUCKET) -> Use:
    store = athrottled.MemoryStore()
    return Use(ASYNC_LIMIT, limiter=athrottled.Throttled("api", using=using, quota=NEVER_REFUSING, store=store))


def on_redis(url: str, using: str = TOKEN_BUCKET) -> Use:
    return Use(LIMIT, limiter=Throttled("api", using=using, quota=NEVER_REFUSING, store=RedisStore(url)))


def async_on_redis(url: str, using: str = TOKEN_BUCKET) -> Use:
    store = athrottled.RedisStore(url)
    return Use(ASYNC_LIMIT, limiter=athrottled.Throttled("api", using=using, quota=NEVER_REFUSING, store=store))


def waiting(url: str, using: str, amount: int, burst: int) -> Use:
    return Use(
        LIMIT,
        limiter=Throttled("api", timeout=PATIENCE, using=using, quota=per_sec(amount, burst), store=RedisStore(url)),
    )
