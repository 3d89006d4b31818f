"""What becomes of a job whose server said "not now": its limiter closes for all, and it comes back in its turn."""

from __future__ import annotations

import math
import uuid
from typing import Any

import pytest

from steindamm import (
    AsyncSemaphore,
    AsyncTokenBucket,
    MaxSleepExceededError,
    SyncSemaphore,
    SyncTokenBucket,
    Throttled,
    all_of,
)
from steindamm.integrations.bodies import aput_off, put_off
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Defer, Fail
from steindamm.integrations.job_limits import ASYNC, Claim, JobLimit

PAUSE = 100.0


@pytest.fixture
def name() -> str:
    return f"limiter {uuid.uuid4().hex[:12]}"


def wait_at(limiter: Any) -> float:
    """How long one who comes now waits, in seconds; nothing is taken."""
    return limiter.ask(accept=0, horizon=0).wait


def put_off_at(limiter: Any, error: Exception | None = None, **limit: Any) -> Any:
    return put_off(JobLimit(limiter, **limit), Claim(limiter), Booking(), error or Throttled(PAUSE))


def test_the_limiter_is_closed_for_all_and_the_job_comes_back_after_it(name: str) -> None:
    limiter = SyncTokenBucket(name, capacity=5)
    limiter.acquire()
    outcome = put_off_at(limiter)
    assert outcome.wait == pytest.approx(PAUSE, abs=1)
    assert outcome.booking.turn_at(name) is not None
    assert outcome.booking.deferrals == 1
    assert wait_at(limiter) == pytest.approx(PAUSE, abs=1)


def test_those_who_were_refused_come_back_spread_at_the_limits_own_rate(name: str) -> None:
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=10)
    limiter.acquire()
    waits = [put_off_at(limiter).wait for _ in range(4)]
    assert waits == pytest.approx([PAUSE + 10 * (place + 1) for place in range(4)], abs=1)


def test_its_tokens_stay_spent(name: str) -> None:
    limiter = SyncTokenBucket(name, capacity=2, refill_frequency=1_000)
    limiter.acquire()
    put_off_at(limiter)
    limiter.reopen()
    assert limiter.try_acquire() is None


def test_where_it_adapts_the_rate_falls_as_well(name: str) -> None:
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=10, adapt=True)
    limiter.acquire()
    waits = [put_off_at(limiter).wait for _ in range(2)]
    assert waits == pytest.approx([PAUSE + 20, PAUSE + 40], rel=0.1)


async def test_async_limiters_are_closed_as_well(name: str) -> None:
    limiter = AsyncTokenBucket(name, capacity=1)
    outcome = await aput_off(JobLimit(limiter, kinds=ASYNC), Claim(limiter), Booking(), Throttled(PAUSE))
    assert isinstance(outcome, Defer)
    assert outcome.wait == pytest.approx(PAUSE, abs=1)
    assert (await limiter.ask(accept=0, horizon=0)).wait > PAUSE - 1


async def test_an_async_semaphore_is_closed_where_there_is_no_bucket(name: str) -> None:
    limiter = AsyncSemaphore(name)
    outcome = await aput_off(JobLimit(limiter, kinds=ASYNC), Claim(limiter), Booking(), Throttled(PAUSE))
    assert isinstance(outcome, Defer)
    assert outcome.wait >= PAUSE - 1


def test_of_several_all_buckets_are_closed_and_no_semaphore(name: str) -> None:
    own, common = (SyncTokenBucket(f"{name} {of}", capacity=5) for of in ("own", "common"))
    slots = SyncSemaphore(f"{name} slots")
    outcome = put_off_at(all_of(own, common, slots))
    assert outcome.wait == pytest.approx(PAUSE, abs=1)
    assert min(wait_at(own), wait_at(common)) > PAUSE - 1
    assert slots.try_acquire() is not None


@pytest.mark.parametrize("by_name", [True, False])
def test_of_several_the_one_that_the_error_names_is_closed(name: str, by_name: bool) -> None:
    own, common = (SyncTokenBucket(f"{name} {of}", capacity=5) for of in ("own", "common"))
    put_off_at(all_of(own, common), Throttled(PAUSE, limiter=own.name if by_name else own))
    assert wait_at(own) > PAUSE - 1
    assert common.try_acquire() is not None


def test_an_error_that_names_another_limiter_fails_the_job_and_says_why(name: str) -> None:
    limiter = SyncTokenBucket(name)
    outcome = put_off_at(limiter, Throttled(PAUSE, limiter="another"))
    assert isinstance(outcome, Fail)
    assert isinstance(outcome.error, ValueError)
    assert name in str(outcome.error)
    assert limiter.try_acquire() is not None


def test_a_job_that_may_not_wait_so_long_fails_and_the_limiter_is_closed_all_the_same(name: str) -> None:
    limiter = SyncTokenBucket(name, capacity=5)
    error = Throttled(PAUSE)
    outcome = put_off_at(limiter, error, max_deferral=50)
    assert isinstance(outcome.error, MaxSleepExceededError)
    assert (outcome.error.name, outcome.error.max_sleep, outcome.error.__cause__) == (name, 50, error)
    assert wait_at(limiter) > PAUSE - 1


def test_a_job_that_nothing_limits_comes_back_after_the_pause() -> None:
    outcome = put_off(JobLimit(), None, Booking(), Throttled(PAUSE))
    assert isinstance(outcome, Defer)
    assert outcome.wait == PAUSE
    assert outcome.booking.until is not None
    failed = put_off(JobLimit(max_deferral=50), None, Booking(), Throttled(PAUSE))
    assert isinstance(failed, Fail)


def test_a_reader_that_raises_fails_the_job_with_its_error_and_closes_nothing(name: str) -> None:
    limiter = SyncTokenBucket(name)
    outcome = put_off_at(limiter, OSError(), throttle_on={OSError: lambda _: {}["no such header"]})
    assert isinstance(outcome.error, KeyError)
    assert isinstance(outcome.error.__cause__, OSError)
    assert limiter.try_acquire() is not None


def test_an_error_that_means_something_else_stays_what_it_is(name: str) -> None:
    limiter, error = SyncTokenBucket(name), OSError()
    outcome = put_off_at(limiter, error, throttle_on={OSError: lambda _: None})
    assert outcome.error is error
    assert error.__cause__ is None
    assert limiter.try_acquire() is not None


def test_several_at_once_close_each_limiter_for_the_longest_of_its_pauses(name: str) -> None:
    own, common, other = (SyncTokenBucket(f"{name} {of}", capacity=5) for of in ("own", "common", "other"))
    nested = ExceptionGroup("calls", [Throttled(PAUSE, limiter=common), Throttled(2, limiter=common)])
    error = ExceptionGroup("calls", [Throttled(3, limiter=own), nested])
    outcome = put_off_at(all_of(own, common, other), error)
    assert outcome.wait == pytest.approx(PAUSE, abs=1)
    assert [wait_at(limiter) for limiter in (own, common, other)] == pytest.approx([3, PAUSE, 0], abs=1)


def test_several_refusals_of_limiters_at_once_wait_for_the_longest(name: str) -> None:
    limiter = SyncTokenBucket(name)
    error = ExceptionGroup("calls", [MaxSleepExceededError("inner", wait, 0) for wait in (2, 7, 5)])
    assert put_off_at(limiter, error).wait == 7
    mixed = ExceptionGroup("calls", [MaxSleepExceededError("inner", 7, 0), Throttled(PAUSE)])
    assert put_off_at(limiter, mixed).wait == pytest.approx(PAUSE, abs=1)


@pytest.mark.parametrize("nested", [False, True])
def test_one_error_of_several_that_means_something_else_fails_the_job_with_all_of_them(name: str, nested: bool) -> None:
    limiter = SyncTokenBucket(name)
    error = ExceptionGroup("calls", [Throttled(PAUSE), KeyError("a defect")])
    if nested:
        error = ExceptionGroup("more calls", [Throttled(PAUSE), error])
    outcome = put_off_at(limiter, error)
    assert outcome.error is error
    assert error.__cause__ is None
    assert limiter.try_acquire() is not None


def test_a_reader_that_raises_fails_the_job_with_its_error_also_in_a_group(name: str) -> None:
    throttle_on = {OSError: lambda _: {}["no such header"]}
    for error in (ExceptionGroup("calls", [OSError()]), ExceptionGroup("more", [ExceptionGroup("calls", [OSError()])])):
        outcome = put_off_at(SyncTokenBucket(name), error, throttle_on=throttle_on)
        assert isinstance(outcome.error, KeyError)


def test_a_group_itself_may_be_what_means_it(name: str) -> None:
    error = ExceptionGroup("calls", [KeyError("busy")])
    assert put_off_at(SyncTokenBucket(name), error, throttle_on={ExceptionGroup: lambda _: 7}).wait == pytest.approx(
        7, abs=0.1
    )


def test_a_pause_of_nothing_takes_no_turn(name: str) -> None:
    limiter = SyncTokenBucket(name, capacity=2, refill_frequency=1_000)
    outcome = put_off_at(limiter, Throttled(0))
    assert outcome.wait == 0
    assert limiter.try_acquire() is not None
    assert limiter.try_acquire() is not None


def test_a_backend_that_does_not_answer_defers_the_job_all_the_same(name: str) -> None:
    limiter = SyncTokenBucket(name, connection="redis://127.0.0.1:1")
    outcome = put_off_at(limiter)
    assert outcome.wait == PAUSE
    assert outcome.booking.left(outcome.booking.until - PAUSE) == pytest.approx(PAUSE)


def test_throttle_on_is_checked_when_the_limit_is_declared() -> None:
    with pytest.raises(TypeError, match="throttle_on must be"):
        JobLimit(throttle_on="429")
    assert JobLimit(throttle_on=OSError).throttle_on.pause(OSError()) is None
    assert math.isfinite(JobLimit().throttle_on.pause(Throttled()) or math.inf)
