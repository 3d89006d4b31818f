"""What is sent back to the queue, and when; the hooks are called as a worker calls them, without one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage
from support.dramatiq_jobs import waiting

from steindamm import LimiterUnavailableError, MaxSleepExceededError, SyncSemaphore, SyncTokenBucket
from steindamm.integrations.dramatiq import deferral

HOUR = 3_600.0
Deliver = Callable[..., Any]


@pytest.fixture
def deliver(broker: StubBroker) -> Deliver:
    """Runs one message as a worker's thread does: what its actor returned, or None for one that was skipped."""

    def deliver(message: Message) -> Any:
        proxy = dramatiq.MessageProxy(message.copy())
        try:
            broker.emit_before("process_message", proxy)
            result = broker.get_actor(message.actor_name)(*message.args, **message.kwargs)
        except SkipMessage:
            broker.emit_after("skip_message", proxy)
            return None
        broker.emit_after("process_message", proxy, result=result)
        return result

    return deliver


def slow(name: str, **settings: Any) -> SyncTokenBucket:
    """A token an hour, and none left."""
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=HOUR, **settings)
    limiter.acquire()
    return limiter


def test_a_job_that_may_not_start_waits_in_the_queue_as_it_is(broker: StubBroker, deliver: Deliver, name: str) -> None:
    actor = dramatiq.actor(lambda *_, **__: "ran", broker=broker, actor_name="job", limiter=slow(name))
    sent = actor.message_with_options(args=(1, "two"), kwargs={"three": 3}, on_success="job", notify_shutdown=True)
    assert deliver(sent) is None
    (copy,) = waiting(broker)
    booking = copy.options.pop("steindamm")
    eta = copy.options.pop("eta")
    assert copy.copy(queue_name="default") == sent
    assert "retries" not in copy.options
    assert eta / 1000 - time.time() == pytest.approx(900, abs=5)
    assert booking.keys() == {"limiter", "turn", "since", "until", "deferrals"}
    assert (booking["limiter"], booking["deferrals"]) == (name, 1)
    assert booking["since"] == pytest.approx(time.time(), abs=5)


def test_no_delay_is_longer_than_what_a_broker_bears_and_the_turn_is_kept(
    broker: StubBroker, deliver: Deliver, name: str
) -> None:
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=slow(name))
    deliver(actor.message())
    (first,) = waiting(broker)
    broker.flush("default.DQ")
    deliver(first)
    (second,) = waiting(broker)
    assert second.options["steindamm"]["turn"] == first.options["steindamm"]["turn"]
    assert second.options["steindamm"]["since"] == first.options["steindamm"]["since"]
    assert second.options["steindamm"]["deferrals"] == 2


def test_a_job_that_comes_back_at_its_turn_runs_without_its_booking(
    broker: StubBroker, deliver: Deliver, name: str
) -> None:
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=0.3)
    seen = []

    class Watch(dramatiq.Middleware):
        def before_process_message(self, _: Any, message: Any) -> None:
            seen.append(dict(message.options))

    broker.add_middleware(Watch())
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=limiter, max_sleep=0)
    assert deliver(actor.message()) == "ran"
    assert deliver(actor.message()) is None
    (copy,) = waiting(broker)
    time.sleep(0.3)
    del copy.options["eta"]
    assert deliver(copy.copy(queue_name="default")) == "ran"
    assert seen == [{}, {}]


def test_a_copy_keeps_its_result_and_the_original_stores_none(
    broker: StubBroker, deliver: Deliver, name: str, results: Any
) -> None:
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", store_results=True, limiter=slow(name))
    sent = actor.message()
    deliver(sent)
    (copy,) = waiting(broker)
    assert "store_results" not in copy.options
    with pytest.raises(dramatiq.results.ResultMissing):
        results.get_result(sent)


@pytest.mark.parametrize(
    "forged",
    [
        None,
        3,
        "x" * 1000,
        [],
        {"limiter": 3, "turn": "soon", "since": -1, "until": {}, "deferrals": 10**30},
        {"turn": math.inf, "since": math.nan, "deferrals": True},
        {"turn": 0, "since": 0, "until": 0, "deferrals": 0},
        {"turn": 1e300, "since": 1e300, "deferrals": -5},
    ],
)
def test_a_forged_booking_gains_no_start(broker: StubBroker, deliver: Deliver, name: str, forged: Any) -> None:
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=slow(name))
    if isinstance(forged, dict):
        forged = {"limiter": name, **forged}
    assert deliver(actor.message_with_options(steindamm=forged)) is None
    assert len(waiting(broker)) == 1


def error_of(module: str, kind: str) -> Exception:
    error: Exception = getattr(pytest.importorskip(module), kind)("secret")
    return error


@pytest.mark.parametrize(
    "failure",
    [
        ("builtins", "ConnectionError"),
        ("dramatiq.errors", "ConnectionClosed"),
        ("redis", "ConnectionError"),
        ("redis", "TimeoutError"),
        ("redis", "ReadOnlyError"),
        ("pika.exceptions", "AMQPConnectionError"),
    ],
)
def test_a_broker_that_does_not_answer_is_asked_until_it_does_and_the_job_does_not_run_meanwhile(
    broker: StubBroker, deliver: Deliver, name: str, monkeypatch: pytest.MonkeyPatch, failure: tuple[str, str]
) -> None:
    monkeypatch.setattr(deferral, "AGAIN", 0.0)
    enqueue, failures = broker.enqueue, iter([error_of(*failure)] * 3)

    def flaky(message: Message, *, delay: int | None = None) -> Message:
        for error in failures:
            raise error
        return enqueue(message, delay=delay)

    monkeypatch.setattr(broker, "enqueue", flaky)
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=slow(name))
    assert deliver(actor.message()) is None
    assert len(waiting(broker)) == 1
    assert not list(failures)


def test_a_limiter_that_does_not_answer_defers_the_job_and_keeps_its_turn(
    broker: StubBroker, deliver: Deliver, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = slow(name)
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=limiter)
    deliver(actor.message())
    (copy,) = waiting(broker)
    broker.flush("default.DQ")

    def gone(**_: Any) -> Any:
        raise LimiterUnavailableError(name)

    monkeypatch.setattr(limiter, "ask", gone)
    for _ in range(3):
        assert deliver(copy) is None
    for again in waiting(broker):
        assert again.options["steindamm"]["turn"] == copy.options["steindamm"]["turn"]
        assert again.options["eta"] / 1000 - time.time() < 1.5


def test_an_unforeseen_error_of_a_limiter_fails_the_job_and_runs_nothing(
    broker: StubBroker, deliver: Deliver, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = slow(name)
    actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name="job", limiter=limiter)
    monkeypatch.setattr(limiter, "ask", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deliver(actor.message())


@pytest.mark.parametrize(
    ("deferrals", "shortest", "longest"), [(0, 0.5, 1.0), (3, 4.0, 8.0), (10, 30.0, 60.0), (10**6, 30.0, 60.0)]
)
def test_a_refusal_in_the_body_without_a_time_is_retried_ever_more_seldom(
    broker: StubBroker, deliver: Deliver, deferrals: int, shortest: float, longest: float
) -> None:
    def refused() -> None:
        raise MaxSleepExceededError("elsewhere")

    actor = dramatiq.actor(refused, broker=broker)
    assert deliver(actor.message_with_options(steindamm={"deferrals": deferrals})) is None
    (copy,) = waiting(broker)
    assert shortest - 0.2 < copy.options["eta"] / 1000 - time.time() < longest + 0.2
    assert "retries" not in copy.options


def test_a_body_that_was_told_a_long_wait_is_not_run_before_it_is_over(broker: StubBroker, deliver: Deliver) -> None:
    runs = []

    def refused() -> None:
        runs.append(1)
        raise MaxSleepExceededError("elsewhere", retry_after=10 * HOUR)

    actor = dramatiq.actor(refused, broker=broker)
    deliver(actor.message())
    (copy,) = waiting(broker)
    broker.flush("default.DQ")
    deliver(copy)
    (again,) = waiting(broker)
    assert again.options["steindamm"] == copy.options["steindamm"]
    assert again.options["eta"] / 1000 - time.time() == pytest.approx(900, abs=5)
    assert len(runs) == 1


def test_an_actor_called_by_another_one_is_part_of_its_job(broker: StubBroker, deliver: Deliver) -> None:
    def refused() -> None:
        raise MaxSleepExceededError("elsewhere", retry_after=5.0)

    inner = dramatiq.actor(refused, broker=broker)

    def handle() -> str:
        try:
            inner()
        except MaxSleepExceededError:
            return "handled"
        return "not reached"

    outer = dramatiq.actor(handle, broker=broker)
    assert deliver(outer.message()) == "handled"
    assert not waiting(broker)


def test_what_a_job_was_given_goes_back_when_a_later_middleware_skips_it(
    broker: StubBroker, deliver: Deliver, name: str
) -> None:
    class Skip(dramatiq.Middleware):
        def before_process_message(self, _: Any, message: Any) -> None:
            raise SkipMessage

    broker.add_middleware(Skip())
    bucket = SyncTokenBucket(f"{name} bucket", capacity=1, refill_frequency=HOUR)
    slots = SyncSemaphore(f"{name} slots", capacity=1)
    for number, limiter in enumerate((bucket, slots)):
        actor = dramatiq.actor(lambda: "ran", broker=broker, actor_name=f"job{number}", limiter=limiter)
        assert deliver(actor.message()) is None
        assert limiter.try_acquire() is not None
    assert not waiting(broker)


def test_a_job_of_several_limiters_by_its_arguments(broker: StubBroker, deliver: Deliver, name: str) -> None:
    limiters = {"spent": slow(f"{name} spent"), "full": SyncTokenBucket(f"{name} full", capacity=10)}
    actor = dramatiq.actor(
        lambda kind, size: f"{kind} {size}",
        broker=broker,
        actor_name="job",
        limiter=lambda kind, size: limiters.get(kind),
        cost=lambda kind, size: size,
    )
    assert deliver(actor.message("full", 9)) == "full 9"
    assert deliver(actor.message("spent", 1)) is None
    assert deliver(actor.message("unknown", 99)) == "unknown 99"
    assert deliver(actor.message("full", size=9)) is None
    with pytest.raises(ValueError, match=r"cost must not exceed capacity \(10\), not 11"):
        deliver(actor.message("full", 11))
