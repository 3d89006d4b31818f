"""The demo's jobs in arq."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import redis
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.constants import result_key_prefix
from arq.jobs import deserialize_result

from steindamm import AsyncTokenBucket
from steindamm.demo import calls
from steindamm.demo.readiness import say_ready
from steindamm.demo.setup import Setup
from steindamm.integrations.arq import rate_limited, rate_limited_worker

WORKER_SLOTS = 100

setup = Setup.of(os.environ)
pending: list[str] = []


async def call_api(_: dict[str, Any], job: int) -> int:
    """Call the API; the status of its answer."""
    return await asyncio.to_thread(calls.call_api, setup.api, job)


if setup.limit is not None:
    limiter = AsyncTokenBucket.from_rate(setup.limit, name="demo-api", connection=setup.valkey)
    call_api = rate_limited(limiter=limiter)(call_api)


async def ready(_: dict[str, Any]) -> None:
    """A worker takes jobs."""
    await asyncio.to_thread(say_ready, setup.valkey)


@rate_limited_worker()
class WorkerSettings:
    """A worker as people start it, which looks into its queue ten times a second."""

    functions = (call_api,)
    redis_settings = RedisSettings.from_dsn(setup.valkey)
    on_startup = ready
    max_jobs = WORKER_SLOTS
    poll_delay = 0.1


def worker_command(_: int) -> list[str]:
    """The command that starts it."""
    return [sys.executable, "-m", "arq", f"{__name__}.WorkerSettings"]


class Sender:
    """Puts jobs into the queue, on a loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool: ArqRedis = self._loop.run_until_complete(create_pool(WorkerSettings.redis_settings))

    def send(self, job: int) -> str:
        """The id of the job that was sent."""
        sent = self._loop.run_until_complete(self._pool.enqueue_job("call_api", job))
        assert sent
        return sent.job_id


senders: list[Sender] = []


def send(job: int) -> None:
    """Put one job into the queue."""
    if not senders:
        senders.append(Sender())
    pending.append(senders[0].send(job))


def results() -> list[int | None]:
    """Ask for all that are still out, in one round trip."""
    with redis.Redis.from_url(setup.valkey) as client:
        stored: Any = client.mget([result_key_prefix + job_id for job_id in pending]) if pending else []
    found = {job_id: deserialize_result(data) for job_id, data in zip(pending, stored, strict=True) if data}
    pending[:] = [job_id for job_id in pending if job_id not in found]
    return [result.result if result.success else None for result in found.values()]
