"""Dramatiq in this process: a stub broker, and workers with few threads."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.results import Results
from support.dramatiq_jobs import Seen

from steindamm.integrations.dramatiq import RateLimitMiddleware

with warnings.catch_warnings(action="ignore"):  # of backends whose clients are not installed
    from dramatiq.rate_limits.backends import StubBackend as StubBarriers
    from dramatiq.results.backends import StubBackend


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"limiter {uuid.uuid4().hex[:12]}"


@pytest.fixture
def results() -> StubBackend:
    return StubBackend()


@pytest.fixture
def barriers() -> RateLimiterBackend:
    return StubBarriers()


@pytest.fixture
def broker(results: StubBackend) -> Iterator[StubBroker]:
    """A broker with the middleware, results and async actors; retries come after 10 ms."""
    broker = StubBroker(
        middleware=[
            dramatiq.middleware.AgeLimit(),
            dramatiq.middleware.TimeLimit(interval=20),
            dramatiq.middleware.ShutdownNotifications(),
            dramatiq.middleware.Callbacks(),
            dramatiq.middleware.Pipelines(),
            dramatiq.middleware.Retries(max_retries=3, min_backoff=10, max_backoff=10),
        ]
    )
    broker.fail_fast_default = False
    broker.add_middleware(AsyncIO())
    broker.add_middleware(Results(backend=results))
    broker.add_middleware(RateLimitMiddleware())
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(None)
    broker.flush_all()
    broker.close()


StartWorker = Callable[..., dramatiq.Worker]


@pytest.fixture
def start_worker(broker: StubBroker) -> Iterator[StartWorker]:
    """Starts workers on the broker; they end with the test."""
    started: list[dramatiq.Worker] = []

    def start(threads: int = 4) -> dramatiq.Worker:
        worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=threads)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if any(thread.is_alive() for thread in worker.workers):
            worker.stop()


@pytest.fixture
def seen(broker: StubBroker) -> Seen:
    middleware = Seen()
    broker.add_middleware(middleware, before=dramatiq.middleware.AgeLimit)
    return middleware
