"""redis-py's Lock: one holder at a time."""

from __future__ import annotations

import redis
import redis.asyncio

from benchmarks.support.use import Use

LEASE = 60
POLL = 0.005


def lock(url: str) -> Use:
    client = redis.Redis.from_url(url)
    return Use("with client.lock('lock', timeout=lease, sleep=poll): {body}", client=client, lease=LEASE, poll=POLL)


def async_lock(url: str) -> Use:
    client = redis.asyncio.Redis.from_url(url)
    statement = "async with client.lock('lock', timeout=lease, sleep=poll): {body}"
    return Use(statement, client=client, lease=LEASE, poll=POLL)
