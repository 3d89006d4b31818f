"""What becomes of jobs in a worker of this process: results, callbacks, retries, failures, slots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.results import ResultFailure
from dramatiq.results.backends import StubBackend
from support.dramatiq_jobs import PATIENCE, Seen, tight, until
from support.servers import Server

from steindamm import AsyncTokenBucket, MaxSleepExceededError, SyncSemaphore, SyncTokenBucket, where_is

StartWorker = Callable[..., dramatiq.Worker]


@pytest.mark.parametrize("is_async", [False, True])
def test_limited_jobs_run_once_each_at_their_pace_and_spend_no_retry(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str, is_async: bool
) -> None:
    starts: list[tuple[float, int]] = []

    def note(job: int) -> None:
        starts.append((time.monotonic(), job))

    async def anote(job: int) -> None:
        await asyncio.sleep(0)
        note(job)

    actor = dramatiq.actor(anote if is_async else note, broker=broker, limiter=tight(name), max_sleep=0)
    for job in range(12):
        actor.send(job)
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert sorted(job for _, job in starts) == list(range(12))
    assert starts[-1][0] - starts[0][0] > 11 * 0.05 - 0.03
    assert len(seen.deliveries) <= 2 * 12
    assert all("retries" not in options and "steindamm" not in options for _, options, _ in seen.ended)


@pytest.mark.parametrize(("max_sleep", "sent_back"), [(5, 0), (0, 1)])
def test_a_short_wait_is_slept_through(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str, max_sleep: float, sent_back: int
) -> None:
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=0.2)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="job", limiter=limiter, max_sleep=max_sleep)
    for _ in range(2):
        actor.send()
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert len(seen.ended) == 2
    assert len(seen.sent_back) == sent_back


def test_a_job_that_waited_is_of_its_own_queue_while_it_runs(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str
) -> None:
    names = []

    class Names(dramatiq.Middleware):
        def before_process_message(self, _: Any, message: Any) -> None:
            names.append(message.queue_name)

    broker.add_middleware(Names())
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="job", limiter=tight(name), max_sleep=0)
    for _ in range(4):
        actor.send()
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert names == ["default"] * 4


def test_who_waits_for_a_result_gets_the_real_one(
    broker: StubBroker, start_worker: StartWorker, results: StubBackend, name: str
) -> None:
    actor = dramatiq.actor(
        lambda job: job, broker=broker, actor_name="job", limiter=tight(name), max_sleep=0, store_results=True
    )
    sent = [actor.send(job) for job in range(6)]
    start_worker()
    found = [message.get_result(backend=results, block=True, timeout=PATIENCE) for message in sent]
    assert found == list(range(6))


def test_callbacks_pipelines_and_groups_go_on_once(
    broker: StubBroker, start_worker: StartWorker, results: StubBackend, barriers: RateLimiterBackend, name: str
) -> None:
    broker.add_middleware(GroupCallbacks(barriers))
    limiter = tight(name)
    succeeded, finished = [], []
    add = dramatiq.actor(
        lambda a, b: a + b, broker=broker, actor_name="add", limiter=limiter, max_sleep=0, store_results=True
    )
    success = dramatiq.actor(lambda _, result: succeeded.append(result), broker=broker, actor_name="success")
    finish = dramatiq.actor(lambda: finished.append(1), broker=broker, actor_name="finish")
    group = dramatiq.group([add.message(job, 0) for job in range(4)], broker=broker)
    group.add_completion_callback(finish.message())
    group.run()
    pipeline = (add.message(1, 2) | add.message(3) | add.message(4)).run()
    single = add.send_with_options(args=(5, 5), on_success=success)
    start_worker()
    assert pipeline.get_result(block=True, timeout=PATIENCE) == 10
    assert list(group.get_results(block=True, timeout=PATIENCE)) == [0, 1, 2, 3]
    assert single.get_result(backend=results, block=True, timeout=PATIENCE) == 10
    broker.join("default", timeout=PATIENCE)
    assert succeeded == [10]
    assert finished == [1]


def test_a_job_s_own_retries_are_its_own(broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str) -> None:
    tries: dict[int, int] = {}

    def fail_twice(job: int) -> None:
        tries[job] = tries.get(job, 0) + 1
        if tries[job] < 3:
            raise ValueError("its own reason")

    actor = dramatiq.actor(fail_twice, broker=broker, limiter=tight(name), max_sleep=0, max_retries=2)
    for job in range(4):
        actor.send(job)
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert tries == dict.fromkeys(range(4), 3)
    assert sorted(options.get("retries", 0) for _, options, _ in seen.ended) == [1] * 4 + [2] * 8
    assert not broker.dead_letters


@pytest.mark.parametrize("is_async", [False, True])
def test_a_body_that_is_refused_twice_is_deferred_twice_and_then_done_without_a_retry(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, results: StubBackend, is_async: bool
) -> None:
    runs = []

    def refused_twice() -> str:
        runs.append(1)
        if len(runs) < 3:
            raise MaxSleepExceededError("elsewhere", retry_after=0.02)
        return "done"

    async def arefused_twice() -> str:
        return refused_twice()

    actor = dramatiq.actor(
        arefused_twice if is_async else refused_twice, broker=broker, store_results=True, max_retries=0
    )
    sent = actor.send()
    start_worker()
    assert sent.get_result(backend=results, block=True, timeout=PATIENCE) == "done"
    broker.join("default", timeout=PATIENCE)
    assert len(seen.deliveries) == 3
    assert all("retries" not in options for _, options, _ in seen.ended)
    assert not broker.dead_letters


def test_a_plain_limiter_in_an_async_body_defers_its_job(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str
) -> None:
    passed = []

    async def call(job: int) -> None:
        async with AsyncTokenBucket(name, capacity=1, refill_frequency=0.05, max_sleep=0.001):
            passed.append(job)

    actor = dramatiq.actor(call, broker=broker, max_retries=0)
    for job in range(4):
        actor.send(job)
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert sorted(passed) == [0, 1, 2, 3]
    assert not broker.dead_letters


def test_a_job_that_may_wait_no_longer_fails_with_the_error_and_without_a_retry(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, results: StubBackend, name: str
) -> None:
    failures = []
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=60)
    dramatiq.actor(lambda _, error: failures.append(error["type"]), broker=broker, actor_name="failed")
    actor = dramatiq.actor(
        lambda: "ran",
        broker=broker,
        actor_name="job",
        limiter=limiter,
        max_deferral=0.2,
        store_results=True,
        on_failure="failed",
    )
    first = actor.send()
    start_worker()
    assert first.get_result(backend=results, block=True, timeout=PATIENCE) == "ran"
    second = actor.send()
    with pytest.raises(ResultFailure, match="MaxSleepExceededError") as failed:
        second.get_result(backend=results, block=True, timeout=PATIENCE)
    assert failed.value.orig_exc_type == "MaxSleepExceededError"
    until(lambda: failures == ["MaxSleepExceededError"])
    until(lambda: [message.message_id for message in broker.dead_letters] == [second.message_id])
    assert [type(exception) for *_, exception in seen.ended if exception] == [MaxSleepExceededError]


def test_a_spent_quota_fails_the_job_without_a_retry(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str
) -> None:
    quota = SyncTokenBucket(name, capacity=1, refill_amount=0, refill_frequency=0)
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=quota, max_retries=5)
    actor.send()
    actor.send()
    start_worker()
    until(lambda: broker.dead_letters)
    broker.join("default", timeout=PATIENCE)
    assert len(broker.dead_letters) == 1
    assert len(seen.deliveries) == 2


def test_a_function_that_raises_fails_its_job_with_its_error_and_no_other(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, results: StubBackend, name: str
) -> None:
    limiter = SyncTokenBucket(name, capacity=100)

    def of_kind(kind: str) -> Any:
        if kind == "unknown":
            raise LookupError("no such kind")
        return {"odd": 42}.get(kind, limiter)

    def cost_of(kind: str) -> float:
        return {"negative": -1.0}.get(kind, 1.0)

    actor = dramatiq.actor(
        lambda kind: kind,
        broker=broker,
        actor_name="job",
        limiter=of_kind,
        cost=cost_of,
        store_results=True,
        max_retries=1,
    )
    sent = {kind: actor.send(kind) for kind in ("unknown", "odd", "negative", "fine")}
    start_worker()
    assert sent["fine"].get_result(backend=results, block=True, timeout=PATIENCE) == "fine"
    for kind, error in {"unknown": "LookupError", "odd": "TypeError", "negative": "ValueError"}.items():
        with pytest.raises(ResultFailure) as failed:
            sent[kind].get_result(backend=results, block=True, timeout=PATIENCE)
        assert failed.value.orig_exc_type == error
    broker.join("default", timeout=PATIENCE)
    assert len(seen.deliveries) == 3 * 2 + 1
    assert len(broker.dead_letters) == 3


def test_the_age_limit_counts_from_the_first_sending(broker: StubBroker, start_worker: StartWorker, name: str) -> None:
    runs = []
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=0.4)
    actor = dramatiq.actor(
        lambda: runs.append(1), broker=broker, actor_name="job", limiter=limiter, max_sleep=0, max_age=200
    )
    actor.send()
    actor.send()
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert len(broker.dead_letters) == 1
    assert runs == [1]


class CallingActor(dramatiq.Actor[..., Any]):
    """Calls the function that it was given, and not its own ``fn``, which the middleware limits."""

    def __init__(self, fn: Callable[..., Any], **options: Any) -> None:
        super().__init__(fn, **options)
        self.given = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.given(*args, **kwargs)


def test_an_actor_class_that_goes_round_the_limit_is_reported_and_its_jobs_spend_their_tokens(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []
    bucket, slots = SyncTokenBucket(name, capacity=3, refill_frequency=3_600), SyncSemaphore(name, capacity=1)

    def work(kind: str) -> None:
        runs.append(kind)

    for kind, limiter in (("bucket", bucket), ("slots", slots)):
        actor = dramatiq.actor(work, actor_class=CallingActor, actor_name=f"of {kind}", limiter=limiter)
        for _ in range(5):
            actor.send(kind)
    with caplog.at_level(logging.ERROR, "steindamm.dramatiq"):
        start_worker(threads=1)
        until(lambda: runs.count("slots") == 5 and len(seen.sent_back) >= 2)
    assert runs.count("bucket") == 3
    until(slots.try_acquire)
    said = sorted(record.getMessage() for record in caplog.records if record.name == "steindamm.dramatiq")
    assert [line[:17] for line in said] == ["actor 'of bucket'", "actor 'of slots' "]
    assert all("CallingActor" in line and "self.fn" in line for line in said)


def test_jobs_without_a_limit_run_while_others_wait(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str
) -> None:
    runs = []
    limited = dramatiq.actor(
        lambda: runs.append("limited"),
        broker=broker,
        actor_name="limited",
        max_sleep=600,
        limiter=SyncTokenBucket(name, capacity=1, refill_frequency=20),
    )
    free = dramatiq.actor(lambda: runs.append("free"), broker=broker, actor_name="free")
    for _ in range(10):
        limited.send()
    start_worker(threads=2)
    until(lambda: len(seen.sent_back) >= 8)
    for _ in range(10):
        free.send()
    until(lambda: runs.count("free") == 10)
    assert runs.count("limited") == 1


def test_deferrals_are_no_warnings(
    broker: StubBroker, start_worker: StartWorker, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    actor = dramatiq.actor(lambda *_: None, broker=broker, actor_name="job", limiter=tight(name), max_sleep=0)
    old = dramatiq.actor(lambda: None, broker=broker, actor_name="old", max_age=1)
    with caplog.at_level(logging.DEBUG, logger="steindamm.dramatiq"):
        for _ in range(4):
            actor.send("a secret")
        skipped = old.message().copy(message_timestamp=0)
        broker.enqueue(skipped)
        start_worker()
        broker.join("default", timeout=PATIENCE)
    skips = [record.getMessage() for record in caplog.records if "was skipped" in record.getMessage()]
    assert skips == [f"Message {skipped} was skipped."]
    own = [record.getMessage() for record in caplog.records if record.name == "steindamm.dramatiq"]
    assert own
    assert not any("secret" in line for line in own)


def test_people_can_ask_where_a_job_waits(
    broker: StubBroker, start_worker: StartWorker, valkey: Server, name: str
) -> None:
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=3, connection=valkey.url)
    actor = dramatiq.actor(lambda _: None, broker=broker, actor_name="job", limiter=limiter, max_retries=0)
    ids = [actor.send(job).message_id for job in range(3)]
    start_worker()
    until(lambda: sum(where_is(job, connection=valkey.url) is not None for job in ids) == 2)
    found = [here for job in ids if (here := where_is(job, connection=valkey.url))]
    second, third = sorted(found, key=lambda here: here.place or 0)
    assert (second.limiter, second.place, third.place) == (name, 1, 2)
    assert 0 < (second.turn_in or 0) <= 3 < (third.turn_in or 0) <= 6
    until(lambda: where_is(second.job_id, connection=valkey.url) is None)
    assert [here.place for here in (where_is(third.job_id, connection=valkey.url),) if here] == [1]
