"""The demo's jobs in Dramatiq."""

from __future__ import annotations

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

from steindamm.demo import calls
from steindamm.demo.readiness import say_ready
from steindamm.demo.setup import Setup

WORKER_SLOTS = 4

setup = Setup.of(os.environ)
broker: dramatiq.Broker = RedisBroker(url=setup.valkey)  # type: ignore[no-untyped-call]
stored = RedisBackend(url=setup.valkey)  # type: ignore[no-untyped-call]
pending: list[dramatiq.Message[Any]] = []


class Readiness(dramatiq.Middleware):
    """Tells the demo of a worker that takes jobs."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """It does."""
        say_ready(setup.valkey)


broker.add_middleware(Results(backend=stored, store_results=True))  # type: ignore[no-untyped-call]
broker.add_middleware(Readiness())
dramatiq.set_broker(broker)

if setup.limit is None:
    throttle: dict[str, Any] = {}
else:
    from steindamm import SyncTokenBucket
    from steindamm.integrations.dramatiq import RateLimitMiddleware

    broker.add_middleware(RateLimitMiddleware())
    throttle = {"limiter": SyncTokenBucket.from_rate(setup.limit, name="demo-api", connection=setup.valkey)}


@dramatiq.actor(queue_name="steindamm-demo", **throttle)
def call_api(job: int) -> int:
    """Call the API; the status of its answer."""
    return calls.call_api(setup.api, job)


def worker_command(_: int) -> list[str]:
    """A worker as people start it: one process with some threads."""
    return [sys.executable, "-m", "dramatiq", __name__, "--processes", "1", "--threads", str(WORKER_SLOTS)]


def send(job: int) -> None:
    """Put one job into the queue."""
    pending.append(call_api.send(job))


def results() -> list[int | None]:
    """Ask the result store for all that are still out, in one round trip."""
    with stored.client.pipeline(transaction=False) as pipeline:
        for message in pending:
            pipeline.lindex(stored.build_message_key(message), 0)
        found = dict(zip((message.message_id for message in pending), pipeline.execute(), strict=True))
    pending[:] = [message for message in pending if found[message.message_id] is None]
    statuses: list[Any] = [stored.encoder.decode(data) for data in found.values() if data is not None]
    return [status if isinstance(status, int) else None for status in statuses]
