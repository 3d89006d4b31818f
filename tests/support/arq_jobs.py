"""What the test's worker processes run. Jobs write what they do into a journal, with the server's time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

from arq.connections import RedisSettings
from arq.worker import Retry, func
from redis.asyncio import Redis

from steindamm import AsyncSemaphore, AsyncTokenBucket
from steindamm.integrations.arq import rate_limited, rate_limited_worker
from support.standing_still import LEASE, standing_still_async

BROKER = os.environ["STEINDAMM_TEST_BROKER"]
LIMITS = os.environ["STEINDAMM_TEST_LIMITS"]
OPTIONS = json.loads(os.environ["STEINDAMM_TEST_OPTIONS"])
RECORD = """
local time = redis.call('TIME')
redis.call('RPUSH', 'journal', cjson.encode({time[1] + time[2] / 1000000, unpack(ARGV)}))
"""

limits = Redis.from_url(LIMITS, socket_timeout=1, socket_connect_timeout=1)
api = AsyncTokenBucket(name="api", capacity=5, refill_frequency=0.02, connection=limits)
slots = AsyncSemaphore(name="slots", capacity=3, expiry=2, connection=limits)
one_slot = AsyncSemaphore(name="one slot", capacity=1, expiry=2, connection=limits)
only_slot = standing_still_async(AsyncSemaphore("only slot", capacity=1, expiry=LEASE, connection=limits), LIMITS)


async def record(ctx: dict[str, Any], what: str, *more: object) -> None:
    await ctx["redis"].eval(RECORD, 0, what, *map(str, more))


@rate_limited(limiter=api)
async def call_api(ctx: dict[str, Any], job: int) -> int:
    await record(ctx, "call", job, ctx["job_try"])
    return job


async def unlimited(ctx: dict[str, Any], job: int) -> int:
    await record(ctx, "unlimited", job)
    return job


@rate_limited(limiter=slots)
async def hold_slot(ctx: dict[str, Any], job: int, seconds: float = 0.1, ending: str = "returns") -> int:
    await record(ctx, "in", job, ctx["job_try"])
    try:
        await asyncio.sleep(seconds)
    finally:
        await record(ctx, "out", job)
    if ending == "raises":
        raise ValueError(job)
    if ending == "retries" and ctx["job_try"] == 1:
        raise Retry
    return job


@rate_limited(limiter=one_slot, max_sleep=60)
async def wait_in_worker(ctx: dict[str, Any], job: int, seconds: float = 0.1) -> int:
    await record(ctx, "in", job, ctx["job_try"])
    await asyncio.sleep(seconds)
    return job


@rate_limited(limiter=only_slot)
async def hold_only_slot(ctx: dict[str, Any], job: int) -> None:
    await record(ctx, "in", job, ctx["job_try"])


async def say_ready(ctx: dict[str, Any]) -> None:
    await asyncio.gather(*(ctx["redis"].ping() for _ in range(OPTIONS.get("max_jobs", 10))))
    await record(ctx, "ready", os.getpid())


async def note_delivery(ctx: dict[str, Any]) -> None:
    await record(ctx, "delivered", ctx["job_id"])
    if OPTIONS.get("stops_before_first_step") and ctx["job_try"] == 1:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGSTOP)


@rate_limited_worker()
class WorkerSettings:
    functions = (
        call_api,
        unlimited,
        hold_slot,
        wait_in_worker,
        func(hold_slot, name="hold_slot_briefly", timeout=0.5),
        func(hold_only_slot, timeout=1.5),
    )
    redis_settings = RedisSettings.from_dsn(BROKER)
    on_startup = say_ready
    on_job_start = note_delivery
    max_jobs = OPTIONS.get("max_jobs", 10)
    poll_delay = OPTIONS.get("poll_delay", 0.1)
    job_timeout = OPTIONS.get("job_timeout", 30)
    allow_abort_jobs = True
