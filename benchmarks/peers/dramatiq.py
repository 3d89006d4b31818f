"""dramatiq.rate_limits: its bucket, its window, and its concurrent limiter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dramatiq.rate_limits import BucketRateLimiter, ConcurrentRateLimiter, RateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks.support.use import Use

ACQUIRE = "with limiter.acquire(): {body}"
PLENTY = 1_000_000
POLL = 0.005


def bucket(url: str) -> Use:
    return Use(ACQUIRE, limiter=BucketRateLimiter(RedisBackend(url=url), "api", limit=PLENTY))


def window(url: str) -> Use:
    return Use(ACQUIRE, limiter=WindowRateLimiter(RedisBackend(url=url), "api", limit=PLENTY))


def concurrent(url: str, limit: int = 5) -> Use:
    return Use(ACQUIRE, limiter=ConcurrentRateLimiter(RedisBackend(url=url), "slots", limit=limit))


def waiting_bucket(url: str, amount: int) -> Use:
    return _waiting(BucketRateLimiter(RedisBackend(url=url), "api", limit=amount))


def waiting_concurrent(url: str, limit: int = 5) -> Use:
    return _waiting(ConcurrentRateLimiter(RedisBackend(url=url), "slots", limit=limit))


def _waiting(limiter: RateLimiter) -> Use:
    """Tried again until it passes: it has no other way to wait."""

    @contextmanager
    def acquired() -> Iterator[None]:
        while True:
            with limiter.acquire(raise_on_failure=False) as passed:
                if passed:
                    yield
                    return
            time.sleep(POLL)

    return Use("with acquired(): {body}", acquired=acquired)
