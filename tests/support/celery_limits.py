"""The limits of the test workers' jobs, and the journal into which these write what they do."""

from __future__ import annotations

import functools
import os
from typing import Any

import redis

from steindamm import SyncSemaphore, SyncTokenBucket

BROKER = os.environ["STEINDAMM_TEST_BROKER"]
LIMITS = os.environ["STEINDAMM_TEST_LIMITS"]

journal = redis.Redis.from_url(BROKER)
limits = redis.Redis.from_url(LIMITS)

RECORD = """
local time = redis.call('TIME')
redis.call('RPUSH', 'journal', cjson.encode({tonumber(time[1]) + tonumber(time[2]) / 1000000, unpack(ARGV)}))
redis.call('EXPIRE', 'journal', 600)
"""


def record(what: str, job: str, *more: object) -> None:
    """Write a line into the journal."""
    journal.eval(RECORD, 0, what, job, *map(str, more))


@functools.cache
def bucket(name: str, rate: str, capacity: float = 1) -> SyncTokenBucket:
    return SyncTokenBucket.from_rate(rate, name=name, capacity=capacity, connection=limits)


@functools.cache
def semaphore(name: str, capacity: int = 1, expiry: float = 60) -> SyncSemaphore:
    return SyncSemaphore(name, capacity=capacity, expiry=expiry, connection=limits)


def limit_of(limit: list[Any] | None, *_: Any, **__: Any) -> Any:
    """What a job's first argument says: a bucket as [name, rate, capacity], slots as [name, capacity, expiry].

    A list of such lists says several.
    """
    if limit is None:
        return None
    if isinstance(limit[0], list):
        return [limit_of(each) for each in limit]
    return bucket(*limit) if isinstance(limit[1], str) else semaphore(*limit)
