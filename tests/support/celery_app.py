"""The app of the test workers: its jobs write what they do, and when by the server's clock, into a list in Redis."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import redis
from celery import Celery

from steindamm import SyncSemaphore, SyncTokenBucket
from steindamm.integrations.celery import RateLimitedTask

BROKER = os.environ["STEINDAMM_TEST_BROKER"]
LIMITER = os.environ.get("STEINDAMM_TEST_LIMITER", BROKER)
VISIBILITY_TIMEOUT = float(os.environ.get("STEINDAMM_TEST_VISIBILITY_TIMEOUT", "3600"))

app = Celery("tests", broker=BROKER, backend=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT, "socket_timeout": 5},
    result_expires=600,
    task_track_started=True,
    worker_send_task_events=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
journal = redis.Redis.from_url(BROKER)
limiter_client = redis.Redis.from_url(LIMITER, socket_timeout=2, socket_connect_timeout=2)

RECORD = """
local time = redis.call('TIME')
redis.call('RPUSH', KEYS[1], cjson.encode({tonumber(time[1]) + tonumber(time[2]) / 1000000, unpack(ARGV)}))
redis.call('EXPIRE', KEYS[1], 600)
"""


def record(*what: object) -> None:
    """Write a line into the journal."""
    journal.eval(RECORD, 1, "journal", *map(str, what))


def read_journal() -> list[tuple[Any, ...]]:
    """All lines: when, and what."""
    return [tuple(json.loads(line)) for line in journal.lrange("journal", 0, -1)]


def bucket(name: str, rate: str, capacity: float) -> SyncTokenBucket:
    return SyncTokenBucket.from_rate(rate, name=name, capacity=capacity, connection=limiter_client)


def slots(name: str, capacity: int, expiry: float = 60) -> SyncSemaphore:
    return SyncSemaphore(name, capacity=capacity, expiry=expiry, connection=limiter_client)


@app.task(bind=True, base=RateLimitedTask, limiter=bucket("api", "50/s", 5))
def call_api(self: Any, job: int) -> int:
    record("call", job, self.request.retries, self.request.delivery_info.get("redelivered"))
    return job


@app.task(bind=True, base=RateLimitedTask, limiter=bucket("slow", "1/s", 1))
def call_slow_api(self: Any, job: int) -> int:
    record("slow", job, self.request.retries)
    return job


@app.task(bind=True, base=RateLimitedTask, limiter=bucket("retrying", "50/s", 1), max_retries=1, default_retry_delay=0)
def fail_once(self: Any, job: int) -> int:
    record("tried", job, self.request.retries)
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("for its own reason"), countdown=0)
    return job


@app.task
def unlimited(sent_at: float) -> float:
    record("unlimited", sent_at)
    return time.time() - sent_at


@app.task(base=RateLimitedTask, limiter=slots("three", 3))
def hold_slot(job: int, seconds: float = 0.1) -> int:
    record("hold", job)
    time.sleep(seconds)
    record("free", job)
    return job


@app.task(bind=True, base=RateLimitedTask, limiter=slots("one", 1, expiry=3), max_retries=1, acks_late=True)
def end_somehow(self: Any, how: str) -> str:
    record("start", how, os.getpid())
    if how == "exception":
        raise ValueError(how)
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0)
    if how == "kill":
        os.kill(os.getpid(), 9)
    if how in {"time out", "revoke", "kill worker"}:
        time.sleep(30)
    record("end", how)
    return how


@app.task(bind=True, base=RateLimitedTask, limiter=lambda kind, *_: of_kind(kind), cost=lambda *_: cost_of(*_))
def of_a_kind(self: Any, kind: str, cost: Any = 1) -> str:
    record("ran", kind, self.request.retries)
    return kind


def of_kind(kind: str) -> Any:
    if kind == "raises":
        raise LookupError("no such customer")
    if kind == "nonsense":
        return 42
    return None if kind == "free" else bucket(f"kind {kind}", "100/s", 5)


def cost_of(kind: str, cost: Any = 1) -> Any:
    if cost == "raises":
        raise LookupError("no such cost")
    return cost


@app.task(bind=True, base=RateLimitedTask, max_retries=0)
def refused_inside(self: Any, name: str) -> str:
    record("entered", name, self.request.retries)
    with SyncTokenBucket(name, capacity=1, refill_frequency=0.5, max_sleep=0.01, connection=limiter_client):
        record("passed", name, self.request.retries)
    return name


@app.task(bind=True, base=RateLimitedTask, limiter=bucket("stubborn", "1/h", 1), max_deferral=1.0)
def give_up_after_a_second(self: Any) -> None:
    record("given up", self.request.retries)
