"""What no limiter can beat: a lock, and a script that does nothing."""

from __future__ import annotations

import asyncio
import threading

import redis

from benchmarks.support.use import Use

NOTHING = "return 1"


def lock() -> Use:
    return Use("with lock: {body}", lock=threading.Lock())


def async_lock() -> Use:
    return Use("async with lock: {body}", lock=asyncio.Lock())


def semaphore() -> Use:
    return Use("with semaphore: {body}", semaphore=threading.Semaphore(5))


def async_semaphore() -> Use:
    return Use("async with semaphore: {body}", semaphore=asyncio.Semaphore(5))


def evalsha(url: str) -> Use:
    client = redis.Redis.from_url(url)
    return Use("client.evalsha(sha, 1, 'bare'); {body}", client=client, sha=client.script_load(NOTHING))


def async_evalsha(url: str) -> Use:
    sha = redis.Redis.from_url(url).script_load(NOTHING)
    return Use("await client.evalsha(sha, 1, 'bare'); {body}", client=redis.asyncio.Redis.from_url(url), sha=sha)
