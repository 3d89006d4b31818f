"""Limiters as one might write them in an afternoon: for the checker, which must find out what is wrong with them."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import redis


class NaiveBucket:
    """Reads how many tokens there are, then writes how many are left: two may read the same."""

    def __init__(self, name: str, *, capacity: float, refill_frequency: float, connection: str, **_: Any) -> None:
        self._client = redis.Redis.from_url(connection)
        self._key = f"naive {name}"
        self._capacity, self._refill = capacity, refill_frequency

    def __enter__(self) -> Self:
        while not self._takes():
            time.sleep(self._refill)
        return self

    def _takes(self) -> bool:
        now = time.time()
        tokens, seen = map(float, (self._client.get(self._key) or f"{self._capacity} {now}".encode()).split())
        tokens = min(self._capacity, tokens + (now - seen) / self._refill)
        if tokens >= 1:
            self._client.set(self._key, f"{tokens - 1} {now}", ex=60)
        return tokens >= 1

    def __exit__(self, *_: object) -> None:
        pass


class LeaselessSemaphore:
    """Counts who is in: whoever dies there stays in for ever, and a count that is lost lets all in again."""

    lost = False

    def __init__(self, name: str, *, capacity: int, connection: str, **_: Any) -> None:
        self._client = redis.Redis.from_url(connection)
        self._key = f"leaseless {name}"
        self._capacity = capacity

    def __enter__(self) -> Self:
        while self._client.incr(self._key) > self._capacity:
            self._client.decr(self._key)
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.decr(self._key)
