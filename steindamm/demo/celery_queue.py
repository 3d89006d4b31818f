"""The demo's jobs in Celery."""

from __future__ import annotations

import json
import os
import sys

from celery import Celery
from celery.result import denied_join_result
from celery.signals import worker_ready
from celery.states import READY_STATES, SUCCESS

from steindamm.demo import calls
from steindamm.demo.readiness import say_ready
from steindamm.demo.setup import Setup

WORKER_SLOTS = 4

setup = Setup.of(os.environ)
app = Celery("steindamm-demo", broker=setup.valkey, backend=setup.valkey)
app.conf.update(broker_connection_retry_on_startup=True, task_default_queue="steindamm-demo")
pending: dict[str, int] = {}

if setup.limit is None:
    throttle = {}
else:
    from steindamm import SyncTokenBucket
    from steindamm.integrations.celery import RateLimitedTask

    limiter = SyncTokenBucket.from_rate(setup.limit, name="demo-api", connection=setup.valkey)
    throttle = {"base": RateLimitedTask, "limiter": limiter}


@app.task(**throttle)
def call_api(job: int) -> int:
    """Call the API; the status of its answer."""
    return calls.call_api(setup.api, job)


def worker_command(number: int) -> list[str]:
    """A worker as people start it, with a pool of processes."""
    celery = [sys.executable, "-m", "celery", "--app", __name__, "worker"]
    pool = ["--pool", "prefork", "--concurrency", str(WORKER_SLOTS), "--hostname", f"worker{number}@%h"]
    return [*celery, *pool, "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]


@worker_ready.connect
def ready(**_: object) -> None:
    """A worker takes jobs."""
    say_ready(setup.valkey)


def send(job: int) -> None:
    """Put one job into the queue; nobody here waits for its result, so none is subscribed to."""
    with denied_join_result():
        pending[call_api.delay(job).id] = job


def results() -> list[int | None]:
    """Ask the result store for all that are still out, in one round trip."""
    tasks = list(pending)
    stored = app.backend.mget([app.backend.get_key_for_task(task) for task in tasks]) if tasks else []
    known = {task: json.loads(meta) for task, meta in zip(tasks, stored, strict=True) if meta}
    found: list[int | None] = []
    for task, meta in known.items():
        if meta["status"] in READY_STATES:
            del pending[task]
            found.append(meta["result"] if meta["status"] == SUCCESS else None)
    return found
