"""Celery's jobs."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import redis
from celery import Celery
from celery.signals import after_task_publish, before_task_publish, task_received, worker_ready

from chaos.apps.limits import BROKER, HOLDS, LIMITS, begin, how_it_ends, journal, note_deferrals, terms_of
from steindamm import SyncSemaphore, SyncTokenBucket
from steindamm.integrations.celery import RateLimitedTask

app = Celery("chaos", broker=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": 8,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
limits = redis.Redis.from_url(LIMITS, socket_timeout=1, socket_connect_timeout=1)
note_deferrals("celery")


@worker_ready.connect
def say_ready(**_: Any) -> None:
    journal.write("ready")


@task_received.connect
def note_delivery(request: Any, **_: Any) -> None:
    journal.write("taken", request.id)


@before_task_publish.connect
def note_copy(headers: dict[str, Any], **_: Any) -> None:
    journal.write("taken", headers["id"])


@after_task_publish.connect
def note_sent(headers: dict[str, Any], **_: Any) -> None:
    journal.write("sent", headers["id"])


@cache
def limiter(kind: str, round_: int) -> Any:
    make = SyncTokenBucket if kind != "slot" else SyncSemaphore
    return make(**terms_of(kind, round_), connection=limits)


@app.task(name="work", base=RateLimitedTask, limiter=lambda kind, round_, _: limiter(kind, round_))
def work(kind: str, round_: int, who: str) -> None:
    begin(kind, who)
    if kind == "slot":
        time.sleep(HOLDS)
    journal.write(how_it_ends(kind), who)
