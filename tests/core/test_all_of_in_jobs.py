"""Jobs that are limited by several limits at once: how they are declared, what they carry, what becomes of them."""

from __future__ import annotations

import json
import time
from itertools import count
from typing import Any

import pytest

from steindamm import (
    AsyncTokenBucket,
    MaxSleepExceededError,
    NoTokensAvailableError,
    SyncAllOf,
    SyncSemaphore,
    SyncTokenBucket,
    all_of,
)
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Decision, Defer, Fail, Start, decide, release
from steindamm.integrations.job_limits import ASYNC, JobLimit
from steindamm.several_limits import AllOf

NUMBERS = count(1)
HOUR = 3_600.0
NEW = Booking()


def bucket(capacity: float = 5.0, refill_frequency: float = HOUR) -> SyncTokenBucket:
    return SyncTokenBucket(f"job part {next(NUMBERS)}", capacity=capacity, refill_frequency=refill_frequency)


def slots(capacity: int = 1) -> SyncSemaphore:
    return SyncSemaphore(f"job part {next(NUMBERS)}", capacity=capacity)


def costs(limiter: Any) -> dict[str, float]:
    """What a job takes of each token bucket."""
    return {each.name: each.cost for each in limiter.limiters if isinstance(each, SyncTokenBucket)}


class TestDeclaring:
    def test_a_list_is_all_of_them_at_once(self) -> None:
        first, second = bucket(), slots()
        claim = JobLimit([first, second]).claim((), {})
        assert isinstance(claim.limiter, SyncAllOf)
        assert claim.limiter.name == all_of(second, first).name

    def test_a_list_without_functions_is_joined_once(self) -> None:
        limit = JobLimit([bucket(), (bucket(), 2)])
        assert limit.claim((1,), {}).limiter is limit.claim((2,), {}).limiter

    def test_a_list_of_one_is_that_one(self) -> None:
        one, many = slots(), bucket()
        assert JobLimit([one]).claim((), {}).limiter is one
        assert JobLimit([(many, 3)]).claim((), {}).limiter.cost == 3

    def test_costs_are_numbers_or_functions_of_the_arguments(self) -> None:
        first, second = bucket(), bucket()
        claim = JobLimit([(first, 2), (second, len)]).claim(("abc",), {})
        assert costs(claim.limiter) == {first.name: 2, second.name: 3}

    def test_a_cost_for_the_job_is_taken_from_each_bucket_without_one(self) -> None:
        first, second = bucket(), bucket()
        claim = JobLimit([first, (second, 1), slots()], cost=len).claim(("abc",), {})
        assert costs(claim.limiter) == {first.name: 3, second.name: 1}

    def test_a_function_may_return_a_list_or_what_was_joined_before(self) -> None:
        first, second = bucket(), bucket()
        for given in ([first, second], (first, second), all_of(first, second)):
            assert isinstance(JobLimit(lambda given=given: given).claim((), {}).limiter, AllOf)
        assert JobLimit(lambda: None).claim((), {}) is None

    @pytest.mark.parametrize(
        ("limiter", "error"),
        [
            ([], "takes 1 to 16 limiters"),
            ([5], "limiter must be a limiter, or a pair"),
            ([SyncTokenBucket("twice"), SyncTokenBucket("twice")], "'twice' is named twice"),
            ([(SyncSemaphore("slots"), 2)], "'slots' takes no cost"),
            ([(SyncTokenBucket("api"), 9)], "cost must not exceed capacity"),
            ([AsyncTokenBucket("async"), SyncTokenBucket("sync")], "not its twin AsyncTokenBucket"),
        ],
    )
    def test_what_can_not_be_meant_is_an_error_at_once_or_the_job_s(self, limiter: Any, error: str) -> None:
        with pytest.raises((TypeError, ValueError), match=error):
            JobLimit(limiter)
        with pytest.raises((TypeError, ValueError), match=error):
            JobLimit(lambda: limiter).claim((), {})

    def test_a_list_with_functions_is_checked_as_far_as_it_can_be(self) -> None:
        one = bucket()
        with pytest.raises(ValueError, match="is named twice"):
            JobLimit([one, (one, len)])

        async def cost(_: Any) -> int:
            return 1

        with pytest.raises(TypeError, match="cost must be a plain function"):
            JobLimit([(one, cost)])

    def test_what_was_joined_takes_no_cost_for_all(self) -> None:
        with pytest.raises(TypeError, match="cost must be named with each"):
            JobLimit(all_of(bucket(), bucket()), cost=2)

    def test_async_queues_take_async_ones(self) -> None:
        limit = JobLimit([AsyncTokenBucket("a"), AsyncTokenBucket("b")], kinds=ASYNC)
        assert limit.claim((), {}).limiter.name == "a + b"
        with pytest.raises(TypeError, match="limiter must be an AsyncAllOf here, not its twin SyncAllOf"):
            JobLimit(all_of(bucket(), bucket()), kinds=ASYNC)


class TestBookings:
    def test_carry_a_turn_of_each_limit_through_json(self) -> None:
        booking = Booking().deferred("a + b", (5.0, None), now=100.0)
        read = Booking.read(json.loads(json.dumps(booking.written())))
        assert read == booking
        assert read.turn_at("a + b") == (5.0, None)
        assert read.place == 5.0

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ([1, 2.5, None], (1.0, 2.5, None)),
            ([-1, "x", float("nan"), True, {}, 10**400], (None,) * 6),
            ([[1.0]], (None,)),
            ([0.0] * 17, None),
            ([0.0] * 1_000_000, None),
            ("12", None),
            ({"0": 1.0}, None),
        ],
    )
    def test_are_bounded_and_checked_where_strangers_wrote_them(self, written: Any, read: Any) -> None:
        assert Booking.read({"limiter": "a", "turn": written}).turn == read

    def test_without_a_turn_have_the_first_place(self) -> None:
        assert Booking().place == Booking(turn=(None, None)).place == 0.0
        assert Booking(turn=7.0).place == 7.0


class Jobs:
    """Jobs of one limit, asked about one after the other."""

    def __init__(self, *limiters: Any, **settings: Any) -> None:
        self.limit = JobLimit(list(limiters), **settings)
        self.claim = self.limit.claim((), {})

    def ask(self, booking: Booking = NEW, accept: float = 0.0) -> Decision:
        return decide(self.limit, self.claim, booking, accept=accept)


class TestDeciding:
    def test_a_job_that_waits_for_a_bucket_comes_back_at_its_turn_and_starts(self) -> None:
        jobs = Jobs(bucket(1, refill_frequency=0.1), slots(5), bucket())
        assert isinstance(jobs.ask(), Start)
        deferred = jobs.ask()
        assert isinstance(deferred, Defer)
        assert 0 < deferred.wait <= 0.1
        time.sleep(deferred.wait)
        assert isinstance(jobs.ask(deferred.booking), Start)

    def test_a_job_that_waits_for_a_slot_keeps_its_place_and_starts_when_one_is_free(self) -> None:
        at_once = slots(1)
        jobs = Jobs(at_once, bucket())
        start, deferred = jobs.ask(), jobs.ask()
        assert isinstance(start, Start)
        assert isinstance(deferred, Defer)
        release(jobs.claim, start)
        release(jobs.claim, start)
        assert isinstance(jobs.ask(deferred.booking), Start)
        assert at_once.try_acquire() is None

    def test_no_tokens_are_taken_long_before_a_start_however_long_a_worker_can_wait(self) -> None:
        other = bucket()
        jobs = Jobs(bucket(1, refill_frequency=0.5), other)
        jobs.ask()
        assert isinstance(jobs.ask(accept=10.0), Defer)
        assert other(4).try_acquire()

    @pytest.mark.parametrize("turn", [5.0, (1.0,), (1.0, 2.0, 3.0), None])
    def test_turns_that_other_limits_gave_count_for_none(self, turn: Any) -> None:
        jobs = Jobs(bucket(1), bucket())
        booking = Booking(jobs.claim.limiter.name, turn)
        assert isinstance(jobs.ask(booking), Start)
        assert isinstance(jobs.ask(booking), Defer)

    def test_a_turn_of_several_is_none_of_a_single_limit(self) -> None:
        single = bucket(1)
        limit = JobLimit(single)
        booking = Booking(single.name, (5.0, 6.0))
        assert isinstance(decide(limit, limit.claim((), {}), booking, accept=0.0), Start)

    def test_a_job_that_has_waited_for_too_long_fails_by_the_limit_that_refused(self) -> None:
        short = bucket(1)
        jobs = Jobs(short, bucket(), max_deferral=10)
        jobs.ask()
        failed = jobs.ask()
        assert isinstance(failed, Fail)
        assert isinstance(failed.error, MaxSleepExceededError)
        assert failed.error.name == short.name

    def test_a_job_of_a_spent_quota_fails_by_its_name(self) -> None:
        quota = SyncTokenBucket("spent quota", capacity=1, refill_amount=0, refill_frequency=0)
        jobs = Jobs(quota, bucket())
        jobs.ask()
        failed = jobs.ask()
        assert isinstance(failed, Fail)
        assert isinstance(failed.error, NoTokensAvailableError)
        assert failed.error.name == "spent quota"

    def test_a_job_beyond_the_horizon_keeps_the_turns_that_it_has(self) -> None:
        near, far = bucket(1, refill_frequency=0.05), bucket(1, refill_frequency=50 * HOUR)
        jobs = Jobs(near, far)
        near.acquire()
        deferred = jobs.ask()
        assert isinstance(deferred, Defer)
        far.acquire()
        time.sleep(deferred.wait)
        again = jobs.ask(deferred.booking)
        assert isinstance(again, Defer)
        assert again.answer is None
        assert again.booking.turn == deferred.booking.turn
