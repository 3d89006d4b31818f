"""steindamm, this project's and the published one: a limiter object a name, short-lived or kept."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis

from steindamm import SyncSemaphore, SyncTokenBucket


@cache
def connection(url: str) -> Any:
    return redis.Redis.from_url(url) if url else None


def bucket(name: str, url: str) -> Any:
    limiter = SyncTokenBucket.create(
        name, capacity=5, refill_frequency=0.1, refill_amount=1, expiry=60 if url else 1, connection=connection(url)
    )
    limiter.__enter__()
    return limiter


def semaphore(name: str, url: str) -> Any:
    """One slot of five is held for as long as the limiter object is kept."""
    limiter = SyncSemaphore.create(name, capacity=5, expiry=60, connection=connection(url))
    return Held(limiter)


class Held:
    """A semaphore with a slot held."""

    def __init__(self, limiter: Any) -> None:
        self.limiter = limiter
        limiter.__enter__()

    def __del__(self) -> None:
        self.limiter.__exit__(None, None, None)
