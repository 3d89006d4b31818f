"""Quotas that never refill, and refills on the calendar's grid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from support.buckets import FakeClock, Kind, call
from support.summer_time import SummerTime

from steindamm import MaxSleepExceededError, NoTokensAvailableError
from steindamm.backends.memory import Memory, MemoryBucket
from steindamm.rules.bucket import Request, Verdict, What
from steindamm.settings import BucketSettings

QUOTA = {"refill_amount": 0, "refill_frequency": 0}
YEAR = 366 * 86_400


async def test_a_spent_quota_says_that_no_wait_helps(buckets: Kind) -> None:
    bucket = buckets(capacity=2, **QUOTA)
    await call(bucket.acquire)
    await call(bucket.acquire)
    for ask in (bucket.acquire, bucket.reserve):
        with pytest.raises(NoTokensAvailableError) as spent:
            await call(ask)
        assert spent.value.name == bucket.name
    assert await call(bucket.try_acquire) is None
    answer = await call(bucket.ask, accept=10, horizon=1000)
    assert (answer.permit, answer.turn, answer.wait) == (None, None, float("inf"))


async def test_a_spent_quota_is_spent_for_those_who_would_wait_for_ever_too(buckets: Kind) -> None:
    bucket = buckets(capacity=1, max_sleep=0, **QUOTA)
    await call(bucket.acquire)
    with pytest.raises(NoTokensAvailableError):
        await call(bucket.acquire)


async def test_a_reservation_of_a_quota_can_be_cancelled(buckets: Kind) -> None:
    bucket = buckets(capacity=1, **QUOTA)
    await call((await call(bucket.reserve)).cancel)
    assert await call(bucket.try_acquire)


async def test_a_quota_is_remembered_for_a_year_after_its_last_use(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=2, expiry=60, **QUOTA)
    await call(bucket.acquire)
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    assert YEAR - 60 < admin.ttl(key) <= YEAR + 1


def test_a_local_quota_is_forgotten_after_a_year() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    quota = MemoryBucket(BucketSettings("quota", capacity=1, refill_amount=0, refill_frequency=0), memory)
    take = Request(What.TAKE, 1.0)
    assert quota.ask(take).verdict is Verdict.GRANTED
    clock.now += YEAR - 1
    assert quota.ask(take).verdict is Verdict.REFUSED
    clock.now += YEAR + 1
    assert quota.ask(take).verdict is Verdict.GRANTED


@pytest.mark.parametrize(
    "start",
    [
        datetime(2024, 1, 1, 0, 0, 7, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC),
        datetime(1920, 1, 1, 0, 0, 7, tzinfo=UTC),
        datetime(2024, 1, 1, 2, 30, 7, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
async def test_refills_lie_on_the_grid_of_the_window(buckets: Kind, start: datetime) -> None:
    day = 86_400.0
    bucket = buckets(capacity=10, refill_amount=10, refill_frequency=day, window_start_time=start, max_sleep=1)
    await call(bucket(10).acquire)
    with pytest.raises(MaxSleepExceededError) as refusal:
        await call(bucket.acquire)
    assert refusal.value.retry_after <= day
    next_window = datetime.now(UTC) + timedelta(seconds=refusal.value.retry_after)
    into_the_grid = (next_window - start).total_seconds() % day
    assert min(into_the_grid, day - into_the_grid) < 2


async def test_a_window_start_without_a_zone_means_local_time(buckets: Kind) -> None:
    start = datetime(2024, 1, 1)  # noqa: DTZ001
    bucket = buckets(capacity=1, refill_frequency=3_600.0, window_start_time=start, max_sleep=1)
    await call(bucket.acquire)
    with pytest.raises(MaxSleepExceededError) as refusal:
        await call(bucket.acquire)
    ends = datetime.now() + timedelta(seconds=refusal.value.retry_after)  # noqa: DTZ005
    assert min((ends - start).total_seconds() % 3_600, -(ends - start).total_seconds() % 3_600) < 2


def test_a_window_may_have_started_before_summer_time_ended() -> None:
    """Clocks on walls told more then than they do now."""
    start = (datetime.now(UTC) - timedelta(minutes=30)).astimezone(SummerTime(ends_in=timedelta(minutes=-15)))
    assert BucketSettings("a window", window_start_time=start).window_start_time == start


def test_no_window_starts_in_the_future() -> None:
    start = (datetime.now(UTC) + timedelta(minutes=30)).astimezone(SummerTime(ends_in=timedelta(minutes=15)))
    with pytest.raises(ValueError, match=r"^window_start_time must lie in the past"):
        BucketSettings("a window", window_start_time=start)
