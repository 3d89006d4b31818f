"""Jobs whose server says "not now" close their limiter and come back in their turn; jobs settle their costs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.results import ResultFailure
from dramatiq.results.backends import StubBackend
from support import refusing_api

from steindamm import SyncSemaphore, SyncTokenBucket, Throttled, current_permit
from steindamm.integrations.dramatiq import LimitOptionError, RateLimitMiddleware

StartWorker = Callable[..., dramatiq.Worker]
PATIENCE = 20_000
"""Milliseconds."""


class BusyError(Exception):
    """A server is busy, for so many seconds."""


BUSY = {BusyError: lambda error: error.args[0]}


class Server:
    """Refuses one call of the job named "refused", and keeps when it was called, and by which job."""

    def __init__(self, error: Exception) -> None:
        self.calls: list[tuple[float, Any]] = []
        self._errors = [error]

    def call(self, job: Any) -> Any:
        self.calls.append((time.monotonic(), job))
        if job == "refused" and self._errors:
            raise self._errors.pop()
        return job

    async def acall(self, job: Any) -> Any:
        return self.call(job)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [Throttled(0.6), BusyError(0.6), ExceptionGroup("calls", [Throttled(0.6)])])
def test_a_servers_not_now_closes_the_limiter_for_all_and_spends_no_retry(
    broker: StubBroker, start_worker: StartWorker, name: str, results: StubBackend, error: Exception, is_async: bool
) -> None:
    server = Server(error)
    body = server.acall if is_async else server.call
    options = {"max_retries": 0, "throttle_on": BUSY, "store_results": True}
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=0.02)
    actor = dramatiq.actor(body, broker=broker, actor_name=name, limiter=limiter, **options)
    sent = [actor.send(job) for job in (1, 2, "refused", *range(3, 10))]
    start_worker()
    assert [message.get_result(backend=results, block=True, timeout=PATIENCE) for message in sent][2] == "refused"
    [refused, again] = [at for at, job in server.calls if job == "refused"]
    assert again - refused > 0.59
    assert len(server.calls) == 11
    after = sorted(at - refused for at, _ in server.calls if at - refused > 0.1)
    late = sum(at < 0.59 for at in after)
    assert late <= 3, "more than those that had been let start before"
    assert all(at > 0.6 + 0.02 * (place - 1) - 0.01 for place, at in enumerate(after[late:]))
    assert not broker.dead_letters


def test_the_middleware_says_it_for_all_actors_and_an_actor_for_itself(name: str) -> None:
    broker = StubBroker()
    broker.add_middleware(RateLimitMiddleware(throttle_on=BUSY))
    [middleware] = [each for each in broker.middleware if isinstance(each, RateLimitMiddleware)]
    common = dramatiq.actor(lambda: None, broker=broker, actor_name="common")
    own = dramatiq.actor(lambda: None, broker=broker, actor_name="own", throttle_on=OSError)
    kinds = [middleware._limits[actor].throttle_on.kinds for actor in (common, own)]
    assert kinds == [(BusyError, Throttled), (OSError, Throttled)]
    with pytest.raises(LimitOptionError, match="throttle_on must be"):
        dramatiq.actor(lambda: None, broker=broker, actor_name="wrong", throttle_on="429")


def test_a_slot_is_free_for_others_while_its_job_waits(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    server, slots = Server(Throttled(1.0)), SyncSemaphore(name, capacity=1)
    actor = dramatiq.actor(server.call, broker=broker, actor_name=name, limiter=slots)
    actor.send("refused")
    start_worker()
    deadline = time.monotonic() + 5
    while not server.calls and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    slots.reopen()
    with slots:
        pass
    broker.join("default", timeout=PATIENCE)
    assert len(server.calls) == 2


def test_a_job_that_would_wait_too_long_fails_without_a_retry(
    broker: StubBroker, start_worker: StartWorker, name: str, results: StubBackend
) -> None:
    server = Server(Throttled(30))
    options = {"limiter": SyncTokenBucket(name), "max_deferral": 1, "store_results": True, "max_retries": 5}
    sent = dramatiq.actor(server.call, broker=broker, actor_name=name, **options).send("refused")
    start_worker()
    with pytest.raises(ResultFailure, match="MaxSleepExceededError"):
        sent.get_result(backend=results, block=True, timeout=PATIENCE)
    broker.join("default", timeout=PATIENCE)
    assert len(server.calls) == 1


def test_a_reader_that_raises_fails_its_job_with_its_error(
    broker: StubBroker, start_worker: StartWorker, name: str, results: StubBackend
) -> None:
    server = Server(BusyError())
    options = {"limiter": SyncTokenBucket(name), "throttle_on": BUSY, "store_results": True, "max_retries": 0}
    actor = dramatiq.actor(server.call, broker=broker, actor_name=name, **options)
    odd, fine = actor.send("refused"), actor.send("fine")
    start_worker()
    with pytest.raises(ResultFailure, match="IndexError"):
        odd.get_result(backend=results, block=True, timeout=PATIENCE)
    assert fine.get_result(backend=results, block=True, timeout=PATIENCE) == "fine"


@pytest.mark.parametrize("is_async", [False, True])
def test_jobs_settle_their_costs(broker: StubBroker, start_worker: StartWorker, name: str, is_async: bool) -> None:
    model = SyncTokenBucket(name, capacity=1_000, refill_frequency=1_000)
    together = threading.Barrier(2, timeout=10)

    def use(actual: float) -> None:
        together.wait()
        current_permit().settle(actual)

    async def ause(actual: float) -> None:
        await asyncio.to_thread(use, actual)

    actor = dramatiq.actor(ause if is_async else use, broker=broker, actor_name=name, limiter=model, cost=300)
    actor.send(100)
    actor.send(800)
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert model(101).try_acquire() is None
    assert model(100).try_acquire() is not None


def test_an_api_that_allows_half_of_the_limit_hardly_ever_has_to_say_no(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    limiter = SyncTokenBucket(name, **refusing_api.LIMIT)
    options = {"limiter": limiter, "throttle_on": HTTPError, "max_retries": 0}
    actor = dramatiq.actor(refusing_api.call, broker=broker, actor_name=name, **options)
    with refusing_api.refusing_api() as url:
        for job in range(refusing_api.JOBS):
            actor.send(url, job)
        start_worker(threads=8)
        refusing_api.check(refusing_api.calls_of_all(url))
        broker.join("default", timeout=PATIENCE)
    assert not broker.dead_letters
