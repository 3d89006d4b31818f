"""A job that must wait, and whose copy is refused for good: it fails alone, visibly, and holds up no thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit, MiddlewareError
from dramatiq.results import ResultFailure
from dramatiq.results.backends import StubBackend
from support.dramatiq_jobs import PATIENCE, Seen, until

from steindamm import MaxSleepExceededError, SyncTokenBucket

StartWorker = Callable[..., dramatiq.Worker]


class AlreadyQueuedError(MiddlewareError):
    """The job is in the queue already."""


class Unique(dramatiq.Middleware):
    """Lets no job of the actor named "job" be sent while it is in the queue, as it takes it."""

    def __init__(self) -> None:
        self.queued: set[str] = set()

    def before_enqueue(self, _: Any, message: Any, delay: int | None) -> None:
        if message.actor_name == "job" and message.message_id in self.queued:
            raise AlreadyQueuedError("one is enough")
        self.queued.add(message.message_id)


class Span(dramatiq.Middleware):
    """Keeps something in a job's options that can't be encoded."""

    def before_process_message(self, _: Any, message: Any) -> None:
        message.options["span"] = object()


def refuse() -> None:
    raise MaxSleepExceededError("elsewhere", retry_after=5)


@pytest.mark.parametrize("where", ["before it runs", "in its body"])
@pytest.mark.parametrize(
    ("middleware", "reason"), [(Unique, "AlreadyQueuedError: one is enough"), (Span, "TypeError: .*JSON")]
)
def test_a_job_whose_copy_is_refused_is_a_dead_letter_and_others_run(
    broker: StubBroker,
    start_worker: StartWorker,
    seen: Seen,
    results: StubBackend,
    name: str,
    caplog: pytest.LogCaptureFixture,
    middleware: type[dramatiq.Middleware],
    reason: str,
    where: str,
) -> None:
    broker.add_middleware(middleware(), before=AgeLimit)
    spent = SyncTokenBucket(name, capacity=1, refill_frequency=3_600)
    limiter = spent if where == "before it runs" else None
    assert spent.try_acquire()
    job = dramatiq.actor(refuse, broker=broker, actor_name="job", limiter=limiter, store_results=True)
    free = dramatiq.actor(lambda: "ran", broker=broker, actor_name="free", store_results=True)
    refused = [job.send() for _ in range(2)]
    with caplog.at_level(logging.ERROR, "steindamm.dramatiq"):
        start_worker(threads=1)
        until(lambda: len(broker.dead_letters) == 2)
    assert free.send().get_result(backend=results, block=True, timeout=PATIENCE) == "ran"
    for message in refused:
        with pytest.raises(ResultFailure, match=f"DeferralRefusedError.*{reason}"):
            message.get_result(backend=results)
    assert len(seen.deliveries) == 3
    assert [record.levelno for record in caplog.records if "can't go back" in record.getMessage()] == [40, 40]


class Screening(dramatiq.Middleware):
    """Fails the jobs that it does not like: Dramatiq runs none that has failed."""

    def before_process_message(self, _: Any, message: Any) -> None:
        message.fail()


def test_a_job_that_another_middleware_has_failed_is_a_dead_letter_and_does_not_come_back(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str
) -> None:
    broker.add_middleware(Screening(), before=AgeLimit)
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=3_600)
    limiter.acquire()
    dramatiq.actor(lambda: None, broker=broker, actor_name="job", limiter=limiter).send()
    start_worker(threads=1)
    until(lambda: broker.dead_letters)
    assert not seen.sent_back
