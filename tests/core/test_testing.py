"""What `steindamm.testing` gives to tests: limiters of every kind without a server and without waiting."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from typing import Any

import pytest

from steindamm import (
    AsyncAllOf,
    AsyncSemaphore,
    AsyncTokenBucket,
    MaxSleepExceededError,
    NoTokensAvailableError,
    SyncSemaphore,
    SyncTokenBucket,
    all_of,
)
from steindamm.testing import instant_limiters, strict_limiters

NOWHERE = "redis://127.0.0.1:1"


class Limiter:
    """A limiter of any kind, used as its kind is."""

    def __init__(self, kind: type, connection: str | None, **settings: Any) -> None:
        self.limiter = kind(name="tested", connection=connection, **settings)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self.limiter, method)(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def enter(self) -> None:
        if isinstance(self.limiter, (AsyncTokenBucket, AsyncSemaphore, AsyncAllOf)):
            async with self.limiter:
                pass
        else:
            with self.limiter:
                pass


@pytest.fixture(params=[None, NOWHERE], ids=["local", "redis"])
def connection(request: pytest.FixtureRequest) -> str | None:
    return request.param


BUCKETS, SEMAPHORES = (SyncTokenBucket, AsyncTokenBucket), (SyncSemaphore, AsyncSemaphore)


def limiter_of(kind: type, connection: str | None) -> Limiter:
    """Two at once; of a bucket, then one a minute."""
    settings = {"refill_frequency": 60} if kind in BUCKETS else {}
    return Limiter(kind, connection, capacity=2, **settings)


@pytest.fixture(params=BUCKETS)
def bucket(request: pytest.FixtureRequest, connection: str | None) -> Limiter:
    return limiter_of(request.param, connection)


@pytest.fixture(params=SEMAPHORES)
def semaphore(request: pytest.FixtureRequest, connection: str | None) -> Limiter:
    return limiter_of(request.param, connection)


@pytest.fixture(params=BUCKETS + SEMAPHORES)
def limiter(request: pytest.FixtureRequest, connection: str | None) -> Limiter:
    return limiter_of(request.param, connection)


@pytest.fixture(autouse=True)
def _no_real_time_passes() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 10


class TestInstant:
    async def test_everything_starts_at_once(self, limiter: Limiter) -> None:
        with instant_limiters() as limits:
            for _ in range(20):
                await limiter.enter()
                assert await limiter.call("acquire")
                assert await limiter.call("try_acquire")
                assert (await limiter.call("reserve")).delay == 0
        assert limits.taken == {"tested": 80}

    async def test_costs_are_counted(self, bucket: Limiter) -> None:
        with instant_limiters() as limits:
            bucket.limiter = bucket.limiter(1.5)
            await bucket.enter()
            await bucket.call("ask", cost=2)
        assert limits.taken == {"tested": 3.5}

    async def test_jobs_start(self, limiter: Limiter) -> None:
        with instant_limiters():
            for _ in range(20):
                answer = await limiter.call("ask")
                assert (answer.wait, answer.permit is not None) == (0, True)
                await limiter.call("give_back", answer)

    async def test_slots_are_given_back(self, semaphore: Limiter) -> None:
        with instant_limiters():
            for _ in range(3):
                permit = await semaphore.call("acquire")
                assert not permit.lost
                await semaphore.call("release", permit)

    async def test_limiters_that_are_made_meanwhile_are_instant_too(self, connection: str | None) -> None:
        with instant_limiters():
            for kind in BUCKETS + SEMAPHORES:
                for _ in range(5):
                    await limiter_of(kind, connection).enter()

    async def test_wrong_costs_are_refused_as_ever(self, bucket: Limiter) -> None:
        with instant_limiters(), pytest.raises(ValueError, match="cost must not exceed capacity"):
            bucket.limiter(3)


class TestStrict:
    async def test_a_bucket_refuses_whom_it_would_let_wait(self, bucket: Limiter) -> None:
        with strict_limiters() as limits:
            await bucket.enter()
            await bucket.enter()
            with pytest.raises(MaxSleepExceededError) as refusal:
                await bucket.enter()
            assert refusal.value.retry_after == pytest.approx(60, abs=5)
            assert await bucket.call("try_acquire") is None
        assert limits.taken == {"tested": 2}

    async def test_a_short_wait_is_refused_too(self) -> None:
        quick = Limiter(SyncTokenBucket, None, capacity=1, refill_frequency=0.5, max_sleep=0)
        with strict_limiters():
            await quick.enter()
            with pytest.raises(MaxSleepExceededError):
                await quick.enter()

    async def test_time_is_the_tests(self, bucket: Limiter) -> None:
        with strict_limiters() as limits:
            for _ in range(3):
                await bucket.enter()
                await bucket.enter()
                with pytest.raises(MaxSleepExceededError):
                    await bucket.enter()
                limits.advance(120)

    async def test_a_semaphore_refuses_at_once(self, semaphore: Limiter) -> None:
        with strict_limiters() as limits:
            permits = [await semaphore.call("acquire") for _ in range(2)]
            with pytest.raises(MaxSleepExceededError):
                await semaphore.enter()
            await semaphore.call("release", permits[0])
            await semaphore.enter()
        assert limits.taken == {"tested": 3}

    async def test_jobs_are_told_when_to_come_back(self, bucket: Limiter) -> None:
        with strict_limiters() as limits:
            await bucket.enter()
            await bucket.enter()
            booked = await bucket.call("ask", accept=30, horizon=3600)
            assert (booked.permit, round(booked.wait)) == (None, 60)
            limits.advance(61)
            assert (await bucket.call("ask", accept=30, horizon=3600, turn=booked.turn)).permit

    async def test_jobs_that_listen_are_woken(self, semaphore: Limiter) -> None:
        woken = asyncio.Event()
        with strict_limiters():
            permits = [await semaphore.call("acquire") for _ in range(2)]
            answer = await semaphore.call("ask", wake=woken.set)
            await semaphore.call("release", permits[0])
            assert woken.is_set()
            assert semaphore.limiter.permit_of(answer)

    async def test_a_spent_quota_stays_spent(self) -> None:
        quota = SyncTokenBucket(name="quota", capacity=1, refill_amount=0, refill_frequency=0)
        with strict_limiters() as limits:
            quota.acquire()
            limits.advance(86_400)
            with pytest.raises(NoTokensAvailableError):
                quota.acquire()

    def test_sync_and_async_limiters_share_their_limit(self) -> None:
        with strict_limiters():
            SyncTokenBucket(name="shared", capacity=1, connection=NOWHERE).acquire()
            with pytest.raises(MaxSleepExceededError):
                asyncio.run(AsyncTokenBucket(name="shared", capacity=1).acquire())

    def test_each_test_begins_with_full_limits(self) -> None:
        limiter = SyncTokenBucket(name="again", capacity=1, refill_frequency=60)
        for _ in range(3):
            with strict_limiters():
                limiter.acquire()

    @pytest.mark.parametrize("seconds", [-1, float("nan"), "1"])
    def test_time_does_not_go_back(self, seconds: Any) -> None:
        with strict_limiters() as limits, pytest.raises((ValueError, TypeError), match="seconds"):
            limits.advance(seconds)


@pytest.fixture(params=[(SyncTokenBucket, SyncSemaphore), (AsyncTokenBucket, AsyncSemaphore)], ids=["sync", "async"])
def several(request: pytest.FixtureRequest, connection: str | None) -> Limiter:
    """A bucket with two tokens, one more a minute, and a semaphore with one slot."""
    bucket, semaphore = request.param
    several = Limiter(bucket, connection, capacity=2, refill_frequency=60)
    several.limiter = all_of(several.limiter, semaphore("slots", capacity=1, connection=connection))
    return several


class TestSeveralLimits:
    async def test_instant_ones_let_everything_start(self, several: Limiter) -> None:
        with instant_limiters() as limits:
            permits = [await several.call("acquire") for _ in range(10)]
            for permit in permits:
                await several.call("release", permit)
            await several.enter()
        assert limits.taken == {"tested": 11, "slots": 11}

    async def test_strict_ones_refuse_whom_they_would_let_wait(self, several: Limiter) -> None:
        with strict_limiters() as limits:
            permit = await several.call("acquire")
            with pytest.raises(MaxSleepExceededError) as refusal:
                await several.enter()
            assert refusal.value.name == "slots"
            await several.call("release", permit)
            await several.enter()
            with pytest.raises(MaxSleepExceededError) as refusal:
                await several.enter()
            assert refusal.value.name == "tested"
            limits.advance(60)
            await several.enter()
        assert limits.taken == {"tested": 3, "slots": 3}


@pytest.mark.parametrize("mode", [instant_limiters, strict_limiters])
async def test_afterwards_limiters_are_what_they_were(mode: Any) -> None:
    before = SyncTokenBucket(name=f"before {mode.__name__}", capacity=1, refill_frequency=60)
    before.acquire()
    with mode():
        before.acquire()
        meanwhile = SyncTokenBucket(name=f"meanwhile {mode.__name__}", capacity=1, refill_frequency=60)
        meanwhile.acquire()
    assert before.try_acquire() is None
    assert meanwhile.try_acquire()
    assert meanwhile.try_acquire() is None
    semaphore = AsyncSemaphore(name=f"afterwards {mode.__name__}", capacity=1)
    async with semaphore:
        assert await semaphore.try_acquire() is None


def test_a_test_that_fails_leaves_them_as_they_were() -> None:
    limiter = SyncTokenBucket(name="failing", capacity=1, refill_frequency=60)
    with pytest.raises(ZeroDivisionError), instant_limiters():
        1 / limiter.acquire().waited
    assert limiter.try_acquire()
    assert limiter.try_acquire() is None


def test_a_strict_semaphore_that_is_closed_opens_when_the_test_says_that_time_has_passed() -> None:
    semaphore = SyncSemaphore(name="closed", connection=NOWHERE)
    with strict_limiters() as limits:
        semaphore.close_for(30)
        with pytest.raises(MaxSleepExceededError) as refusal:
            semaphore.acquire()
        limits.advance(refusal.value.retry_after or 0)
        assert semaphore.try_acquire()


def test_instant_limiters_are_instant_whatever_is_closed_or_overridden() -> None:
    semaphore, bucket = SyncSemaphore(name="slots", connection=NOWHERE), SyncTokenBucket("api", connection=NOWHERE)
    both = all_of(semaphore, bucket)
    with instant_limiters():
        for change in (semaphore, bucket):
            change.close_for(30)
            change.override(capacity=1)
        for limiter in (semaphore, bucket, both):
            assert [limiter.acquire(), limiter.acquire()]


def test_limiters_that_are_instant_for_a_while_do_not_forget_what_was_taken_of_strict_ones() -> None:
    limiter = SyncTokenBucket("api", capacity=1, connection=NOWHERE)
    with strict_limiters():
        limiter.acquire()
        with instant_limiters():
            limiter.acquire()
        assert limiter.try_acquire() is None
