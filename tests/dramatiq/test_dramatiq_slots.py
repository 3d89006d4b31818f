"""Slots of a semaphore in a worker of this process come back however a job ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Interrupt, Shutdown, raise_thread_exception
from support.dramatiq_jobs import PATIENCE, Seen, until

from steindamm import SyncSemaphore, SyncTokenBucket

StartWorker = Callable[..., dramatiq.Worker]


def fail() -> None:
    raise ValueError("its own reason")


def retry() -> None:
    raise dramatiq.Retry(delay=1)


def last() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.005)


def be_interrupted() -> None:
    threading.Timer(0.05, raise_thread_exception, (threading.get_ident(), Interrupt)).start()
    last()


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (lambda: None, {}),
        (fail, {}),
        (retry, {}),
        (last, {"time_limit": 50}),
        (be_interrupted, {}),
    ],
    ids=["returns", "fails", "retries", "exceeds its time", "is interrupted"],
)
def test_a_slot_comes_back_however_a_job_ends(
    broker: StubBroker, start_worker: StartWorker, name: str, body: Callable[[], None], options: dict[str, Any]
) -> None:
    slots = SyncSemaphore(name, capacity=1)
    entered = []

    def job() -> None:
        entered.append(slots.try_acquire())
        body()

    dramatiq.actor(job, broker=broker, limiter=slots, max_retries=0, **options).send()
    start_worker()
    until(lambda: entered)
    until(lambda: (permit := slots.try_acquire()) and not slots.release(permit))
    broker.join("default", timeout=PATIENCE)
    assert entered == [None]


def test_a_slot_comes_back_when_the_worker_s_end_interrupts_its_job(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    slots = SyncSemaphore(name, capacity=1)
    entered, errors = [], []

    def job() -> None:
        entered.append(1)
        try:
            last()
        except Shutdown as error:
            errors.append(error)
            raise

    dramatiq.actor(job, broker=broker, limiter=slots, notify_shutdown=True, max_retries=0).send()
    worker = start_worker()
    until(lambda: entered)
    worker.stop()
    assert len(errors) == 1
    assert slots.try_acquire() is not None


@pytest.mark.parametrize("state", ["waits", "runs"])
def test_an_aborted_job_leaves_its_slot_to_others(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str, state: str
) -> None:
    abort = pytest.importorskip("dramatiq_abort")
    abortable = abort.Abortable(backend=pytest.importorskip("dramatiq_abort.backends").StubBackend())
    abortable.wait_timeout = 20
    broker.add_middleware(abortable)
    slots = SyncSemaphore(name, capacity=1)
    held = slots.acquire() if state == "waits" else None
    entered = []

    def job() -> None:
        entered.append(1)
        last()

    sent = dramatiq.actor(job, broker=broker, limiter=slots, max_retries=0).send()
    start_worker()
    until(lambda: seen.sent_back if state == "waits" else entered)
    abort.abort(sent.message_id, middleware=abortable)
    if held:
        slots.release(held)
    broker.join("default", timeout=PATIENCE)
    assert len(entered) == (state == "runs")
    assert slots.try_acquire() is not None


def test_a_slot_is_given_back_once_when_the_end_of_a_job_is_interrupted(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    interrupts = iter([Interrupt(), Interrupt()])
    calls = []

    class Trouble(dramatiq.Middleware):
        def after_process_message(self, _: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
            calls.append(exception)
            if exception is None:
                raise next(interrupts)

    broker.add_middleware(Trouble())
    slots = SyncSemaphore(name, capacity=2)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="job", limiter=slots, max_retries=0)
    actor.send()
    start_worker(threads=1)
    broker.join("default", timeout=PATIENCE)
    assert len(calls) == 2
    assert [slots.try_acquire() is not None for _ in range(3)] == [True, True, False]


def test_a_semaphore_bounds_how_many_run_at_once(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str
) -> None:
    running, most, done = set(), [], []

    def hold(job: int) -> None:
        running.add(job)
        most.append(len(running))
        time.sleep(0.02)
        running.discard(job)
        done.append(job)

    actor = dramatiq.actor(hold, broker=broker, limiter=SyncSemaphore(name, capacity=2))
    for job in range(20):
        actor.send(job)
    start_worker(threads=6)
    broker.join("default", timeout=PATIENCE)
    assert sorted(done) == list(range(20))
    assert max(most) == 2
    assert all("retries" not in options for _, options, _ in seen.ended)


@pytest.mark.parametrize("kind", ["bucket", "semaphore"])
def test_a_worker_that_ends_does_not_sleep_for_jobs(
    broker: StubBroker, start_worker: StartWorker, seen: Seen, name: str, kind: str
) -> None:
    limiter: Any = (
        SyncTokenBucket(name, capacity=1, refill_frequency=25) if kind == "bucket" else SyncSemaphore(name, capacity=1)
    )
    limiter.acquire()
    ran = []
    actor = dramatiq.actor(lambda: ran.append(1), broker=broker, actor_name="job", limiter=limiter, max_sleep=60)
    sent = actor.send()
    worker = start_worker()
    until(lambda: seen.deliveries)
    time.sleep(0.05)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 10
    assert not ran
    assert seen.sent_back == [sent.message_id]
    if kind == "bucket":
        assert limiter.reserve().delay < 25.1


def test_an_interrupt_while_the_thread_sleeps_for_its_job_leaves_no_slot_held(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    threads: list[int] = []

    class Notes(dramatiq.Middleware):
        def before_process_message(self, _: Any, message: Any) -> None:
            threads.append(threading.get_ident())

    broker.add_middleware(Notes(), before=dramatiq.middleware.AgeLimit)
    slots = SyncSemaphore(name, capacity=1)
    held = slots.acquire()
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="job", limiter=slots, max_sleep=1, max_retries=0)
    actor.send()
    start_worker(threads=2)
    until(lambda: threads)
    time.sleep(0.05)
    raise_thread_exception(threads[0], Interrupt)
    until(lambda: broker.dead_letters)
    slots.release(held)
    assert slots.try_acquire() is not None
