"""Users test their own actors with a stub broker and limiters that do not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker

from steindamm import SyncSemaphore, SyncTokenBucket
from steindamm.testing import instant_limiters, strict_limiters

StartWorker = Callable[..., dramatiq.Worker]
REDIS = "redis://localhost:1"
"""Nobody is there."""


def test_with_instant_limiters_all_jobs_run_at_once_and_no_server_is_needed(
    broker: StubBroker, start_worker: StartWorker
) -> None:
    runs: list[str] = []

    def run(job: str) -> None:
        runs.append(job)

    mail = SyncTokenBucket.from_rate("1/h", name="mail", connection=REDIS)
    writers = SyncSemaphore("writers", capacity=1, connection=REDIS)
    for number, limiter in enumerate((mail, writers)):
        dramatiq.actor(run, broker=broker, actor_name=f"job{number}", limiter=limiter)
    with instant_limiters() as limits:
        for job in range(10):
            broker.get_actor(f"job{job % 2}").send("done")
        worker = start_worker()
        broker.join("default", timeout=10_000)
        worker.join()
    assert runs == ["done"] * 10
    assert limits.taken == {"mail": 5, "writers": 5}


def test_with_strict_limiters_a_job_beyond_the_limit_is_deferred(broker: StubBroker, start_worker: StartWorker) -> None:
    runs: list[int] = []

    def run(job: int) -> None:
        runs.append(job)

    deferred: list[Any] = []

    class Watch(dramatiq.Middleware):
        def after_enqueue(self, _: Any, message: Any, delay: int | None) -> None:
            if delay is not None:
                deferred.append(message.options["steindamm"]["limiter"])

    broker.add_middleware(Watch())
    mail = SyncTokenBucket.from_rate("1/h", name="mail", connection=REDIS)
    actor = dramatiq.actor(run, broker=broker, actor_name="job", limiter=mail)
    with strict_limiters():
        for job in range(3):
            actor.send(job)
        worker = start_worker()
        deadline = time.monotonic() + 10
        while len(deferred) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        worker.stop()
    assert len(runs) == 1
    assert deferred == ["mail", "mail"]
