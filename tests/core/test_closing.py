"""A closed bucket lets nobody start; when it opens, those who waited start one after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.bucket_and_clock import HOUR, US, Bucket
from support.buckets import Kind, call
from support.summer_time import SummerTime

from steindamm import MaxSleepExceededError, NoTokensAvailableError, all_of
from steindamm.rules.bucket import Verdict, kept_until

# The rule, at times that the test sets


def test_nobody_starts_while_it_is_closed_and_the_wait_is_told() -> None:
    bucket = Bucket(capacity=3)
    bucket.close(2)
    assert bucket.take(accept=1.9 * US).verdict is Verdict.REFUSED
    assert [bucket.take().wait for _ in range(4)] == [2 * US, 2 * US, 2 * US, 3 * US]


def test_all_who_have_a_turn_have_it_later_by_as_much() -> None:
    bucket = Bucket(capacity=1)
    turns = [bucket.take().turn for _ in range(4)]
    bucket.now = 0.5 * US
    bucket.close(10)
    assert [bucket.look(turn) for turn in turns[1:]] == [10.5, 11.5, 12.5]
    assert bucket.take().wait == 13.5 * US


def test_a_booked_job_that_comes_while_it_is_closed_keeps_its_turn() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    first, second = bucket.book().turn, bucket.book().turn
    bucket.close(10)
    bucket.now = first
    assert bucket.come_back(first).verdict is Verdict.EARLY
    assert bucket.come_back(first).wait == 10 * US
    bucket.now = 11 * US
    assert bucket.come_back(first).verdict is Verdict.GRANTED
    assert bucket.come_back(second, accept=0).wait == US


def test_two_hundred_that_had_booked_start_at_the_limits_own_rate_after_it() -> None:
    bucket = Bucket(capacity=10, step=0.02 * US)
    bucket.drained()
    back = sorted((bucket.now + booked.wait, booked.turn) for booked in [bucket.book() for _ in range(200)])
    bucket.now = 0.3 * US
    bucket.close(2)
    starts = []
    while back:
        at, turn = back.pop(0)
        bucket.now = max(at, bucket.now)
        decision = bucket.come_back(turn)
        if decision.verdict is Verdict.GRANTED:
            starts.append(bucket.now + decision.wait)
        else:
            back = sorted([*back, (bucket.now + decision.wait, decision.turn)])
    assert len(starts) == 200
    assert not [start for start in starts if 0.3 * US < start < 2.3 * US]
    after = sorted(start for start in starts if start >= 2.3 * US)
    most = max(sum(first <= start < first + US for start in after) for first in after)
    assert most <= 10 + 50
    assert after[-1] - after[0] == pytest.approx((len(after) - 10) / 50 * US, abs=0.1 * US)


def test_it_opens_in_the_end_and_is_as_it_was() -> None:
    bucket = Bucket(capacity=2)
    bucket.close(5)
    bucket.now = 5 * US
    assert bucket.drained() == 2
    assert bucket.state.live is None


def test_no_tokens_arrive_while_it_is_closed() -> None:
    bucket = Bucket(capacity=5)
    bucket.drained()
    bucket.now = 0.5 * US
    bucket.close(100)
    bucket.now = 100.5 * US
    assert bucket.drained() == 0
    bucket.now = 101 * US
    assert bucket.drained() == 1


def test_closing_once_more_for_longer_counts_and_for_less_does_not() -> None:
    bucket = Bucket(capacity=1)
    bucket.close(10)
    bucket.now = 4 * US
    bucket.close(2)
    assert bucket.take(accept=0).wait == 6 * US
    bucket.close(8)
    assert bucket.take(accept=0).wait == 8 * US


def test_reopening_moves_all_turns_up_again() -> None:
    bucket = Bucket(capacity=1)
    turns = [bucket.take().turn for _ in range(3)]
    bucket.close(1_000)
    bucket.now = 7 * US
    bucket.reopen()
    assert [bucket.look(turn) for turn in turns] == [0, 1, 2]


def test_reopening_what_is_open_changes_nothing() -> None:
    bucket = Bucket(capacity=2)
    bucket.take()
    bucket.reopen()
    assert bucket.state.live is None
    assert bucket.drained() == 1


def test_who_does_not_use_a_turn_can_give_it_back_while_it_is_closed() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turn = bucket.book().turn
    bucket.close(10)
    assert bucket.look(turn) == 11
    line = bucket.state.line
    bucket.ask(3, turn=turn)
    assert bucket.state.line == line + 1


def test_a_server_clock_that_is_set_back_leaves_it_closed_for_no_longer_than_was_meant() -> None:
    bucket = Bucket(capacity=1, now=2 * HOUR)
    bucket.close(5)
    bucket.now -= HOUR
    assert bucket.take(accept=0).wait == 5 * US
    bucket.now += 5 * US
    assert bucket.drained() == 1


def test_a_clock_that_is_set_back_after_it_has_opened_closes_it_no_more() -> None:
    bucket = Bucket(capacity=1, now=2 * HOUR)
    bucket.take()
    bucket.book()
    bucket.close(5)
    bucket.now += 5.5 * US
    bucket.take(accept=0)
    bucket.now -= HOUR
    assert bucket.take(accept=0).wait <= 3 * US


def test_it_is_remembered_for_as_long_as_it_is_closed() -> None:
    bucket = Bucket(capacity=1, keep=1.0)
    bucket.close(86_400)
    assert kept_until(bucket.terms, bucket.state, bucket.now) >= 86_400 * US


def test_it_is_remembered_until_it_is_as_fast_as_ever() -> None:
    bucket = Bucket(capacity=1, keep=1.0)
    bucket.back_off(1, recovery=400)
    assert kept_until(bucket.terms, bucket.state, bucket.now) == (1 + 400 / 2) * US


def test_a_quota_can_be_closed() -> None:
    bucket = Bucket(capacity=2, amount=0, step=0)
    bucket.close(3)
    assert bucket.take(accept=0).wait == 3 * US
    bucket.now = 3 * US
    assert bucket.drained() == 2
    assert bucket.take().wait == float("inf")


# Windows of the calendar


DAY = 24 * HOUR


def calendar(tokens: float = 100) -> Bucket:
    return Bucket(capacity=tokens, amount=tokens, step=DAY, anchor=0.0, now=10 * DAY + HOUR)


def test_a_window_that_begins_while_it_is_closed_has_its_tokens_when_it_opens() -> None:
    bucket = calendar()
    bucket.drained()
    bucket.close(86_400)
    assert bucket.take(accept=0).wait == DAY
    assert [bucket.book(horizon=9 * DAY).wait for _ in range(101)] == [*[DAY] * 100, 2 * DAY - HOUR]


def test_windows_that_went_by_while_it_was_closed_are_gone() -> None:
    bucket = calendar()
    bucket.close(5 * 86_400)
    bucket.now += 5 * DAY
    assert bucket.drained() == 100


def test_one_that_is_opened_early_has_what_its_own_window_has_left() -> None:
    bucket = calendar()
    assert [bucket.at_once() for _ in range(60)] == [True] * 60
    bucket.close(3 * 86_400)
    assert bucket.book(horizon=9 * DAY).verdict is Verdict.BOOKED
    bucket.now += HOUR
    bucket.reopen()
    assert bucket.drained() == 39


def test_one_that_is_opened_early_in_a_later_window_has_that_windows_tokens() -> None:
    bucket = calendar()
    bucket.drained()
    bucket.close(3 * 86_400)
    bucket.now += DAY
    bucket.reopen()
    assert bucket.drained() == 100


# The face, on real backends


async def test_whoever_shares_it_is_refused_at_once(buckets: Kind) -> None:
    one = buckets(max_sleep=5)
    other = buckets(one.name, max_sleep=5, capacity=7)
    await call(one.close_for, 60)
    assert await call(other.try_acquire) is None
    with pytest.raises(MaxSleepExceededError) as error:
        await call(other.acquire)
    assert error.value.retry_after == pytest.approx(60, abs=5)
    await call(other.reopen)
    assert await call(one.try_acquire)


async def test_whoever_asks_meanwhile_waits_until_it_opens(buckets: Kind) -> None:
    bucket = buckets(refill_frequency=0.05)
    began = time.monotonic()
    await call(bucket.close_for, 0.8)
    permits = await asyncio.gather(*(call(bucket.acquire) for _ in range(7)))
    assert time.monotonic() - began > 0.85
    assert min(permit.waited for permit in permits) > 0.2


async def test_one_who_sleeps_sleeps_on(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=0.7)
    elsewhere = buckets(bucket.name, capacity=1, refill_frequency=0.7, expiry=90)
    await call(bucket.acquire)
    sleeper = asyncio.create_task(call(bucket.acquire))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await call(elsewhere.close_for, 1)
    permit = await sleeper
    assert time.monotonic() - began > 1.3
    assert permit.waited > 1.3


async def test_one_who_sleeps_is_refused_when_its_turn_moves_beyond_its_patience(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=1.5, max_sleep=2)
    await call(bucket.acquire)
    sleeper = asyncio.create_task(call(bucket.acquire))
    await asyncio.sleep(0.1)
    await call(bucket.close_for, 600)
    with pytest.raises(MaxSleepExceededError) as error:
        await asyncio.wait_for(sleeper, 10)
    assert error.value.retry_after == pytest.approx(600, abs=20)
    assert error.value.max_sleep == 2
    assert (await call(bucket.state)).line_length == 0


async def test_one_who_sleeps_is_told_when_it_opens_early(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=0.1, max_sleep=0)
    await call(bucket.close_for, 3_600)
    sleeper = asyncio.create_task(call(bucket.acquire))
    await asyncio.sleep(0.1)
    await call(bucket.reopen)
    assert (await asyncio.wait_for(sleeper, 10)).waited < 10


async def test_those_who_sleep_in_another_process_are_told_as_well(redis_buckets: Kind) -> None:
    """Threads and tasks hear of a bucket as two processes do."""
    bucket = redis_buckets(refill_frequency=0.1, max_sleep=0)
    elsewhere = replace(redis_buckets, asynchronous=not redis_buckets.asynchronous)(bucket.name, refill_frequency=0.1)
    await call(bucket.close_for, 3_600)
    limits = [bucket, bucket, all_of(bucket, redis_buckets(max_sleep=0))]
    sleepers = [asyncio.create_task(call(limit.acquire)) for limit in limits]
    await asyncio.sleep(0.2)
    await call(elsewhere.reopen)
    await asyncio.wait_for(asyncio.gather(*sleepers), 10)


async def test_all_who_sleep_have_the_tokens_that_they_took_when_it_opens_early(buckets: Kind) -> None:
    bucket = buckets(capacity=5, refill_frequency=600, max_sleep=0)
    await call(bucket.close_for, 3_600)
    sleepers = [asyncio.create_task(call(bucket.acquire)) for _ in range(4)]
    await asyncio.sleep(0.2)
    await call(bucket.reopen)
    await asyncio.wait_for(asyncio.gather(*sleepers), 10)
    state = await call(bucket.state)
    assert (state.counters.granted, round(state.tokens)) == (4, 1)


async def test_it_can_be_closed_until_a_moment(buckets: Kind) -> None:
    bucket = buckets(max_sleep=5)
    await call(bucket.close_until, datetime.now(UTC) + timedelta(seconds=100))
    with pytest.raises(MaxSleepExceededError) as error:
        await call(bucket.acquire)
    assert error.value.retry_after == pytest.approx(100, abs=5)
    naive = datetime.now() + timedelta(hours=1)  # noqa: DTZ005
    await call(bucket.close_until, naive)
    with pytest.raises(MaxSleepExceededError) as error:
        await call(bucket.acquire)
    assert error.value.retry_after == pytest.approx(3_600, abs=5)


async def test_a_moment_after_summer_time_has_ended_lies_in_the_future(buckets: Kind) -> None:
    """Clocks on walls tell less then than they do now."""
    bucket, zone = buckets(), SummerTime(ends_in=timedelta(minutes=15))
    await call(bucket.close_until, (datetime.now(UTC) + timedelta(minutes=30)).astimezone(zone))
    assert (await call(bucket.state)).closed_for == pytest.approx(1_800, abs=5)


async def test_backing_off_closes_what_does_not_adapt(buckets: Kind) -> None:
    bucket = buckets(capacity=2)
    await call(bucket.back_off, 0.2)
    assert not await call(bucket.try_acquire)
    await asyncio.sleep(0.25)
    assert await call(bucket(2).try_acquire)


async def test_a_closed_quota_that_is_spent_never_helps(buckets: Kind) -> None:
    quota = buckets(capacity=1, refill_amount=0, refill_frequency=0)
    await call(quota.acquire)
    await call(quota.close_for, 10)
    with pytest.raises(NoTokensAvailableError):
        await call(quota.acquire)


async def test_a_closed_bucket_has_an_end_in_redis(redis_buckets: Kind) -> None:
    bucket = redis_buckets(expiry=1)
    await call(bucket.close_for, 1_000)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    assert 990 < admin.ttl(key) <= 1_001


async def test_a_bucket_that_was_closed_takes_no_more_room_than_before(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=3)
    await call(bucket.acquire)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    size = admin.strlen(key)
    await call(bucket.close_for, 0.1)
    assert admin.strlen(key) > size
    await asyncio.sleep(0.2)
    await call(bucket.acquire)
    assert admin.strlen(key) == size


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 400 * 86_400.0, 1e300])
async def test_a_time_that_is_none_is_refused(buckets: Kind, seconds: float) -> None:
    bucket = buckets()
    for close in (bucket.close_for, bucket.back_off):
        with pytest.raises(ValueError, match=r"^(seconds|retry_after) must be"):
            await call(close, seconds)
    assert await call(bucket.try_acquire)


@pytest.mark.parametrize("seconds", ["5", None, True, timedelta(seconds=5)])
async def test_a_time_of_the_wrong_kind_is_refused(buckets: Kind, seconds: object) -> None:
    with pytest.raises(TypeError, match=r"^seconds must be a number"):
        await call(buckets().close_for, seconds)


async def test_a_moment_that_makes_no_sense_is_refused(buckets: Kind) -> None:
    bucket = buckets()
    now = datetime.now(UTC)
    for moment in (now - timedelta(seconds=1), now + timedelta(days=3_650), datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(ValueError, match=r"^moment must"):
            await call(bucket.close_until, moment)
    with pytest.raises(TypeError, match=r"^moment must be a datetime, not float"):
        await call(bucket.close_until, time.time())
    assert await call(bucket.try_acquire)
