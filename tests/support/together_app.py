"""One limiter, and a job of each queue that passes it and writes a line into the journal by the server's clock."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
import redis
from arq.connections import RedisSettings
from celery import Celery
from dramatiq.brokers.redis import RedisBroker

from steindamm import AsyncTokenBucket, SyncTokenBucket
from steindamm.integrations.arq import rate_limited, rate_limited_worker
from steindamm.integrations.celery import RateLimitedTask
from steindamm.integrations.dramatiq import RateLimitMiddleware

URL = os.environ["STEINDAMM_TEST_BROKER"]
LIMIT = {"capacity": 4, "refill_frequency": 0.025, "refill_amount": 1, "connection": URL}
shared = SyncTokenBucket("shared", **LIMIT)
journal = redis.Redis.from_url(URL)

celery_app = Celery("together", broker=URL, backend=URL)
celery_app.conf.update(
    broker_connection_retry_on_startup=True, worker_cancel_long_running_tasks_on_connection_loss=False
)
broker = RedisBroker(url=URL)
broker.add_middleware(RateLimitMiddleware())
dramatiq.set_broker(broker)

RECORD = """
local time = redis.call('TIME')
redis.call('RPUSH', 'journal', ARGV[1] .. ' ' .. time[1] .. '.' .. string.format('%06d', time[2]))
"""


def record(who: str) -> None:
    journal.eval(RECORD, 0, who)


def read_journal() -> list[tuple[str, float]]:
    """Who started, and when."""
    lines = (line.decode().split() for line in journal.lrange("journal", 0, -1))
    return [(who, float(when)) for who, when in lines]


@celery_app.task(base=RateLimitedTask, limiter=shared, ignore_result=True)
def celery_job() -> None:
    record("celery")


@dramatiq.actor(limiter=shared)
def dramatiq_job() -> None:
    record("dramatiq")


@rate_limited(limiter=AsyncTokenBucket("shared", **LIMIT))
async def arq_job(ctx: dict[str, Any]) -> None:
    record("arq")


@rate_limited_worker()
class WorkerSettings:
    functions = (arq_job,)
    redis_settings = RedisSettings.from_dsn(URL)
    poll_delay = 0.05
    keep_result = 0


def plain_job() -> None:
    with shared:
        record("plain")
