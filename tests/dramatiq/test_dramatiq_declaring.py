"""What may be said of an actor's limit, and what is refused when the actor is declared."""

from __future__ import annotations

import logging
import math
import multiprocessing
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit, MiddlewareError, ShutdownNotifications, TimeLimit

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.integrations.dramatiq import LimitOptionError, RateLimitMiddleware

BUCKET = SyncTokenBucket("declared bucket", capacity=5)
SLOTS = SyncSemaphore("declared semaphore", capacity=2)
REDIS = "redis://localhost"


def job(*_: Any) -> None:
    """Nothing."""


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker()
    broker.add_middleware(RateLimitMiddleware())
    return broker


@pytest.mark.parametrize(
    "options",
    [
        {"limiter": BUCKET},
        {"limiter": BUCKET, "cost": 5, "max_sleep": 0, "max_deferral": 0},
        {"limiter": BUCKET, "cost": lambda *_: 2.5},
        {"limiter": SLOTS, "max_sleep": 3, "max_deferral": 60},
        {"limiter": lambda *_: None},
        {"limiter": None},
        {"max_deferral": 60},
        {},
    ],
)
def test_a_limit_is_declared_with_the_actor(broker: StubBroker, options: dict[str, Any]) -> None:
    assert dramatiq.actor(job, broker=broker, **options).options.items() >= options.items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limiter": AsyncTokenBucket("a", connection=REDIS)}, "a SyncTokenBucket here, not its twin AsyncTokenBucket"),
        ({"limiter": AsyncSemaphore("a")}, "a SyncSemaphore here, not its twin AsyncSemaphore"),
        ({"limiter": SyncTokenBucket}, "limiter must be a limiter, or a function of the job's arguments"),
        ({"limiter": "100/m"}, "limiter must be a limiter, .* not str"),
        ({"limiter": 3}, "limiter must be a limiter, .* not int"),
        ({"limiter": BUCKET, "cost": 6}, r"cost must not exceed capacity \(5\), not 6"),
        ({"limiter": BUCKET, "cost": -1}, "cost must be at least 0"),
        ({"limiter": BUCKET, "cost": math.nan}, "cost must be a finite number"),
        ({"limiter": BUCKET, "cost": "2"}, "cost must be a number, not str"),
        ({"limiter": lambda *_: BUCKET, "cost": -1}, "cost must be at least 0"),
        ({"limiter": SLOTS, "cost": 1}, "cost must be left out for a semaphore"),
        ({"cost": 1}, "cost needs a limiter"),
        ({"limiter": None, "cost": 1}, "cost needs a limiter"),
        ({"limiter": BUCKET, "max_sleep": -1}, "max_sleep must be at least 0"),
        ({"limiter": BUCKET, "max_sleep": math.inf}, "max_sleep must be a finite number"),
        ({"limiter": BUCKET, "max_sleep": None}, "max_sleep must be a number, not NoneType"),
        ({"limiter": BUCKET, "max_deferral": -1}, "max_deferral must be at least 0"),
        ({"limiter": BUCKET, "max_deferral": "1h"}, "max_deferral must be a number, not str"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_actor_s_name(
    broker: StubBroker, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(LimitOptionError, match=f"^actor 'job': .*{said}") as refused:
        dramatiq.actor(job, broker=broker, **options)
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, MiddlewareError)
    assert not broker.actors
    assert not broker.queues


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"limiter": AsyncTokenBucket("a")}, TypeError),
        ({"limiter": 3}, TypeError),
        ({"max_sleep": -1}, ValueError),
        ({"max_deferral": math.nan}, ValueError),
    ],
)
def test_a_wrong_default_is_refused_at_once(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="must be"):
        RateLimitMiddleware(**settings)


def test_a_misspelt_option_is_refused(broker: StubBroker) -> None:
    with pytest.raises(ValueError, match="actor options are undefined: limitr"):
        dramatiq.actor(job, broker=broker, limitr=BUCKET)


def test_without_the_middleware_a_limiter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"undefined: limiter. Did you forget to add a middleware"):
        dramatiq.actor(job, broker=StubBroker(), limiter=BUCKET)


def test_the_middleware_added_twice_is_refused(broker: StubBroker) -> None:
    broker.add_middleware(RateLimitMiddleware())
    with pytest.raises(LimitOptionError, match="added twice"):
        dramatiq.actor(job, broker=broker)


def test_the_middleware_added_again_after_an_actor_is_refused_at_once(broker: StubBroker) -> None:
    dramatiq.actor(job, broker=broker)
    with pytest.raises(LimitOptionError, match="added twice"):
        broker.add_middleware(RateLimitMiddleware())


def order(broker: StubBroker) -> list[type]:
    kinds = (AgeLimit, RateLimitMiddleware, TimeLimit, ShutdownNotifications)
    return [type(middleware) for middleware in broker.middleware if isinstance(middleware, kinds)]


def test_it_takes_its_place_before_what_interrupts_jobs_and_after_the_age_limit(broker: StubBroker) -> None:
    dramatiq.actor(job, broker=broker)
    assert order(broker) == [AgeLimit, RateLimitMiddleware, TimeLimit, ShutdownNotifications]


def test_it_takes_its_place_when_it_is_added_late() -> None:
    broker = StubBroker()
    dramatiq.actor(job, broker=broker)
    broker.add_middleware(RateLimitMiddleware())
    assert order(broker) == [AgeLimit, RateLimitMiddleware, TimeLimit, ShutdownNotifications]


@pytest.mark.parametrize("where", [{"before": AgeLimit}, {"after": AgeLimit}, {"before": TimeLimit}])
def test_it_stays_in_a_place_that_is_early_enough(where: dict[str, Any]) -> None:
    broker, middleware = StubBroker(), RateLimitMiddleware()
    broker.add_middleware(middleware, **where)
    chosen = list(broker.middleware)
    dramatiq.actor(job, broker=broker)
    assert broker.middleware == chosen


def test_it_stays_where_it_is_when_nothing_interrupts_jobs() -> None:
    broker, middleware = StubBroker(middleware=[AgeLimit()]), RateLimitMiddleware()
    broker.add_middleware(middleware)
    dramatiq.actor(job, broker=broker)
    assert broker.middleware[-1] is middleware


def test_a_called_actor_is_a_plain_function(broker: StubBroker) -> None:
    quota = SyncTokenBucket("called directly", capacity=1, refill_amount=0, refill_frequency=0)
    actor = dramatiq.actor(lambda: "called", broker=broker, actor_name="direct", limiter=quota)
    assert [actor() for _ in range(3)] == ["called"] * 3


@pytest.mark.parametrize(("process", "warnings"), [("Process-2", 1), ("Process-1", 0), ("MainProcess", 0)])
def test_the_second_of_several_processes_warns_of_a_limiter_in_memory(
    broker: StubBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    process: str,
    warnings: int,
) -> None:
    shared = SyncTokenBucket("on Redis", connection=REDIS)
    for number, limiter in enumerate((BUCKET, shared, BUCKET)):
        dramatiq.actor(job, broker=broker, actor_name=f"job{number}", limiter=limiter)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", process)
    with caplog.at_level(logging.WARNING, logger="steindamm.dramatiq"):
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=10)
        worker.start()
        worker.stop()
    said = [record.getMessage() for record in caplog.records if "lives in memory" in record.getMessage()]
    assert len(said) == warnings
    assert all("'declared bucket'" in line and "connection=" in line and "--processes 1" in line for line in said)
