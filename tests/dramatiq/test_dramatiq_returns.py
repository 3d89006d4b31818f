"""How jobs come back from a worker's memory, and which threads may sleep; on Dramatiq's own consumer, not started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, PriorityQueue
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import _ConsumerThread as ConsumerThread

from steindamm.integrations.dramatiq.fetched import Fetched
from steindamm.integrations.dramatiq.returns import GRACE, Returns
from steindamm.integrations.dramatiq.threads import Threads

CLOCK = 0.001
"""Seconds: Dramatiq's clock counts whole milliseconds."""


@pytest.fixture
def consumer() -> Any:
    broker = StubBroker(middleware=[])
    dramatiq.actor(lambda: None, broker=broker, actor_name="job")
    return ConsumerThread(
        broker=broker, queue_name="default.DQ", prefetch=100, work_queue=PriorityQueue(), worker_timeout=100
    )


@pytest.fixture
def threads() -> Threads:
    return Threads(2)


@pytest.fixture
def returns(threads: Threads) -> Iterator[Returns]:
    returns = Returns(threads, Fetched())
    yield returns
    returns.close()


def wait_in(consumer: Any, returns: Returns, seconds: float, **options: Any) -> dramatiq.MessageProxy:
    """A message that the consumer holds for so many seconds."""
    eta = int((time.time() + seconds) * 1000)
    message = dramatiq.Message("default.DQ", "job", (), {}, {"eta": eta, **options})
    proxy = dramatiq.MessageProxy(message)
    if "steindamm" in options:
        returns.expect(consumer, proxy)
    consumer.handle_message(proxy)
    return proxy


def next_for_threads(consumer: Any, patience: float = 5.0) -> dramatiq.MessageProxy | None:
    try:
        entry = consumer.work_queue.get(timeout=patience)
    except Empty:
        return None
    return entry[1] if isinstance(entry, tuple) else entry.message


def test_a_job_goes_to_the_threads_at_its_turn_and_not_before(consumer: Any, returns: Returns) -> None:
    began = time.time()
    late, early = (wait_in(consumer, returns, seconds, steindamm={}) for seconds in (0.1, 0.05))
    assert next_for_threads(consumer) is early
    assert time.time() - began > 0.05 - CLOCK
    assert next_for_threads(consumer) is late
    assert time.time() - began > 0.1 - CLOCK
    assert "eta" not in early.options
    assert consumer.delay_queue.empty()
    assert consumer.delay_queue.unfinished_tasks == 0


def test_other_delayed_messages_stay_where_they_are(consumer: Any, returns: Returns) -> None:
    for seconds in (0.0, 0.0, 10.0):
        wait_in(consumer, returns, seconds)
    mine = wait_in(consumer, returns, 0.05, steindamm={})
    assert next_for_threads(consumer) is mine
    assert next_for_threads(consumer, patience=0.05) is None
    assert consumer.delay_queue.qsize() == consumer.delay_queue.unfinished_tasks == 3


def test_no_more_jobs_come_than_threads_are_free_and_the_next_when_one_is(
    consumer: Any, returns: Returns, threads: Threads
) -> None:
    jobs = [wait_in(consumer, returns, 0.01 * number, steindamm={}) for number in range(4)]
    first, second = next_for_threads(consumer), next_for_threads(consumer)
    assert [first, second] == jobs[:2]
    assert next_for_threads(consumer, patience=0.1) is None
    returns.arrived(first)
    threads.run()
    returns.thread_is_free()
    assert next_for_threads(consumer, patience=0.1) is None
    threads.rest()
    returns.thread_is_free()
    assert next_for_threads(consumer) is jobs[2]


def test_a_job_that_finds_no_thread_is_dramatiq_s_after_the_time_of_grace(consumer: Any, returns: Returns) -> None:
    job = wait_in(consumer, returns, 1.0, steindamm={})
    assert job.options["eta"] / 1000 - time.time() == pytest.approx(1.0 + GRACE / 1000, abs=0.2)


def test_so_is_one_whose_turn_was_over_before_it_came(consumer: Any, returns: Returns) -> None:
    """As all are that waited while no worker was there: the long way, they would be sent once more."""
    now = int(time.time() * 1000)
    options = {"eta": now - 60_000, "steindamm": {}}
    job = dramatiq.MessageProxy(dramatiq.Message("default.DQ", "job", (), {}, options))
    returns.expect(consumer, job)
    assert job.options["eta"] >= now + GRACE
    consumer.handle_message(job)
    assert next_for_threads(consumer) is job


def test_a_worker_that_ends_leaves_its_jobs_where_they_are(consumer: Any, returns: Returns) -> None:
    wait_in(consumer, returns, 0.05, steindamm={})
    returns.close()
    assert next_for_threads(consumer, patience=0.2) is None
    assert consumer.delay_queue.qsize() == 1


def test_a_job_of_an_unknown_actor_takes_no_thread(consumer: Any, returns: Returns, threads: Threads) -> None:
    dead: list[Any] = []
    consumer.post_process_message = dead.append
    strangers = []
    for _ in range(5):
        eta = int(time.time() * 1000)
        options = {"eta": eta, "steindamm": {}}
        strangers.append(dramatiq.MessageProxy(dramatiq.Message("default.DQ", "unknown", (), {}, options)))
        returns.expect(consumer, strangers[-1])
        consumer.handle_message(strangers[-1])
    known = wait_in(consumer, returns, 0.05, steindamm={})
    assert next_for_threads(consumer) is known
    assert all(stranger.failed for stranger in dead)


@pytest.mark.parametrize(
    ("total", "running", "sleeping", "may"),
    [
        (1, 0, 0, False),
        (2, 0, 0, True),
        (2, 0, 1, False),
        (2, 1, 0, False),
        (8, 0, 3, True),
        (8, 0, 4, False),
        (8, 6, 0, True),
        (8, 7, 0, False),
    ],
)
def test_a_thread_may_sleep_while_another_is_free_and_half_of_all_are_awake(
    monkeypatch: pytest.MonkeyPatch, total: int, running: int, sleeping: int, may: bool
) -> None:
    threads = Threads(total)
    for ident in range(running):
        monkeypatch.setattr("steindamm.integrations.dramatiq.threads.get_ident", lambda ident=ident: ident)
        threads.run()
    asleep = []
    for ident in range(sleeping):
        monkeypatch.setattr("steindamm.integrations.dramatiq.threads.get_ident", lambda ident=ident: 100 + ident)
        asleep.append(threads.asleep())
        asleep[-1].__enter__()
    assert threads.may_sleep is may
    assert threads.free == total - running - sleeping
