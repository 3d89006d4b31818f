"""arq's jobs."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from arq.connections import RedisSettings
from redis.asyncio import Redis

from chaos.apps.limits import BROKER, HOLDS, LIMITS, begin, how_it_ends, journal, note_deferrals, terms_of
from steindamm import AsyncSemaphore, AsyncTokenBucket
from steindamm.integrations.arq import rate_limited, rate_limited_worker

limits = Redis.from_url(LIMITS, socket_timeout=1, socket_connect_timeout=1)
note_deferrals("arq")


@cache
def limiter(kind: str, round_: int) -> Any:
    make = AsyncTokenBucket if kind != "slot" else AsyncSemaphore
    return make(**terms_of(kind, round_), connection=limits)


@rate_limited(limiter=lambda kind, round_, _: limiter(kind, round_))
async def work(ctx: dict[str, Any], kind: str, round_: int, who: str) -> None:
    begin(kind, who)
    try:
        if kind == "slot":
            await asyncio.sleep(HOLDS)
    except asyncio.CancelledError:
        journal.write("cut", who)
        raise
    journal.write(how_it_ends(kind), who)


async def say_ready(ctx: dict[str, Any]) -> None:
    journal.write("ready")


async def note_delivery(ctx: dict[str, Any]) -> None:
    journal.write("taken", ctx["job_id"])


@rate_limited_worker()
class WorkerSettings:
    functions = (work,)
    redis_settings = RedisSettings.from_dsn(BROKER)
    on_startup = say_ready
    on_job_start = note_delivery
    max_jobs = 100
    poll_delay = 0.05
    job_timeout = 3
    job_completion_wait = 3
    keep_result = 0
