"""The face of the token bucket: the same for threads and tasks, in memory, on Valkey and on a cluster."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import time

import pytest
from support.buckets import Kind, call, drained

import steindamm
from steindamm import (
    AsyncLocalTokenBucket,
    AsyncRedisTokenBucket,
    AsyncSemaphore,
    AsyncTokenBucket,
    LimiterUnavailableError,
    MaxSleepExceededError,
    NoTokensAvailableError,
    SyncLocalTokenBucket,
    SyncRedisTokenBucket,
    SyncSemaphore,
    SyncTokenBucket,
)

HOUR = 3_600.0


async def enter(bucket) -> steindamm.Permit:
    """A `with` block, or an `async with` one."""

    def block() -> steindamm.Permit:
        with bucket as permit:
            return permit

    if isinstance(bucket, SyncTokenBucket):
        return await call(block)
    async with bucket as permit:
        return permit


# Making one


def test_the_class_is_chosen_by_the_connection(buckets: Kind) -> None:
    bucket = buckets()
    family = AsyncTokenBucket if buckets.asynchronous else SyncTokenBucket
    local = AsyncLocalTokenBucket if buckets.asynchronous else SyncLocalTokenBucket
    remote = AsyncRedisTokenBucket if buckets.asynchronous else SyncRedisTokenBucket
    assert type(bucket) is (local if buckets.local else remote)
    assert isinstance(bucket, family)
    assert type(family.create("made", capacity=3, connection=buckets.connection)) is type(bucket)
    assert type(family.from_rate("5/s", "made", connection=buckets.connection)) is type(bucket)
    assert type(type(bucket)(name="made", connection=buckets.connection)) is type(bucket)


@pytest.mark.parametrize("kind", [SyncLocalTokenBucket, AsyncLocalTokenBucket])
def test_a_local_limiter_takes_no_connection(kind) -> None:
    with pytest.raises(TypeError, match="connection must be None"):
        kind(name="local", connection="redis://localhost")


@pytest.mark.parametrize("kind", [SyncRedisTokenBucket, AsyncRedisTokenBucket])
def test_a_limiter_on_redis_needs_a_connection(kind) -> None:
    with pytest.raises(TypeError, match="connection must be"):
        kind(name="remote")


def test_the_defaults_are_those_that_its_users_know() -> None:
    settings = SyncTokenBucket(name="defaults").settings
    assert (settings.capacity, settings.refill_frequency, settings.refill_amount) == (5, 1, 1)
    assert (settings.initial_tokens, settings.max_sleep, settings.expiry) == (5, 30, 60)
    assert settings.tokens_to_consume == 1


@pytest.mark.parametrize("kind", [SyncTokenBucket, AsyncTokenBucket, SyncSemaphore, AsyncSemaphore])
def test_editors_and_help_find_its_parameters(kind) -> None:
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    assert list(inspect.signature(kind).parameters.values()) == parameters
    assert {"name", "capacity", "max_sleep", "expiry", "connection"} <= {parameter.name for parameter in parameters}


def test_it_tells_its_name_and_cost(buckets: Kind) -> None:
    bucket = buckets("told", tokens_to_consume=2.5)
    assert bucket.name == "told"
    assert bucket.cost == 2.5
    assert "told" in repr(bucket)


# Acquiring


async def test_a_block_starts_at_once_while_there_are_tokens_and_then_at_its_turn(buckets: Kind) -> None:
    bucket = buckets(capacity=2, refill_frequency=0.1)
    begin = time.monotonic()
    permits = [await enter(bucket) for _ in range(4)]
    assert time.monotonic() - begin > 0.19
    assert [permit.waited > 0 for permit in permits] == [False, False, True, True]
    assert {permit.name for permit in permits} == {bucket.name}


async def test_waiters_start_in_the_order_in_which_they_asked(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=0.1)
    order: list[int] = []

    async def caller(number: int) -> None:
        await call(bucket.acquire)
        order.append(number)

    await call(bucket.acquire)
    callers = []
    for number in range(4):
        callers.append(asyncio.create_task(caller(number)))
        await asyncio.sleep(0.03)
    await asyncio.gather(*callers)
    assert order == list(range(4))


async def test_a_try_never_sleeps_and_takes_nothing_where_it_fails(buckets: Kind) -> None:
    bucket = buckets(capacity=3, refill_frequency=HOUR)
    permits = [await call(bucket.try_acquire) for _ in range(5)]
    assert [permit is not None for permit in permits] == [True] * 3 + [False] * 2
    reservation = await call(buckets(bucket.name, capacity=3, refill_frequency=HOUR, max_sleep=0).reserve)
    assert reservation.delay == pytest.approx(HOUR, abs=30)


async def test_a_wait_beyond_max_sleep_is_refused_at_once_and_takes_nothing(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=HOUR, max_sleep=10)
    await call(bucket.acquire)
    for ask in (bucket.acquire, bucket.acquire, bucket.reserve):
        with pytest.raises(MaxSleepExceededError) as refusal:
            await call(ask)
        assert refusal.value.name == bucket.name
        assert refusal.value.max_sleep == 10
        assert refusal.value.retry_after == pytest.approx(HOUR, abs=30)


async def test_after_retry_after_there_is_a_token(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=0.2, max_sleep=0.01)
    await call(bucket.acquire)
    with pytest.raises(MaxSleepExceededError) as refusal:
        await call(bucket.acquire)
    await asyncio.sleep(refusal.value.retry_after + 0.002)
    assert await call(bucket.try_acquire)


async def test_a_max_sleep_of_0_accepts_any_wait(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=40 * 86_400.0, max_sleep=0)
    delays = [(await call(bucket.reserve)).delay for _ in range(3)]
    assert delays == pytest.approx([0, 40 * 86_400, 80 * 86_400], abs=60)


async def test_a_cost_of_0_passes_at_once_and_changes_nothing(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=HOUR)
    await call(bucket.acquire)
    free = bucket(0)
    assert (await call(free.acquire)).cost == 0
    assert await call(free.try_acquire)
    assert (await call(free.reserve)).delay == 0
    await call((await call(free.reserve)).cancel)
    assert (await call(bucket.ask, cost=0)).permit
    assert not await call(bucket.try_acquire)


async def test_a_limiter_with_a_cost_is_another_object_on_the_same_bucket(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    five, two = bucket(5), bucket(2)
    assert (bucket.cost, five.cost, two.cost, five(1).cost) == (1, 5, 2, 1)
    permits = [await enter(limiter) for limiter in (five, two, bucket)]
    assert [permit.cost for permit in permits] == [5, 2, 1]
    assert await drained(bucket) == 2


async def test_a_cost_may_be_named_or_left_out(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR, tokens_to_consume=2)
    limiters = bucket(tokens_to_consume=5), bucket(tokens_to_consume=None), bucket(None), bucket()
    permits = [await enter(limiter) for limiter in limiters[:3]]
    assert [permit.cost for permit in permits] == [5, 2, 2]
    assert limiters[3].cost == 2


async def test_fractions_of_a_token_count_as_such(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=HOUR, tokens_to_consume=0.25)
    assert await drained(bucket) == 4


async def test_blocks_of_one_limiter_may_be_nested(buckets: Kind) -> None:
    bucket = buckets(capacity=3, refill_frequency=HOUR)
    if buckets.asynchronous:
        async with bucket, bucket, bucket:
            pass
    else:
        with bucket, bucket, bucket:
            pass
    assert await drained(bucket) == 0


async def test_one_limiter_serves_any_number_of_threads_or_tasks(buckets: Kind) -> None:
    bucket = buckets(capacity=100, refill_frequency=HOUR)
    permits = await asyncio.gather(*(call(bucket.try_acquire) for _ in range(150)))
    assert sum(permit is not None for permit in permits) == 100


async def test_all_that_use_its_name_share_it(buckets: Kind) -> None:
    one = buckets(capacity=5, refill_frequency=HOUR)
    other = buckets(one.name, capacity=5, refill_frequency=HOUR, max_sleep=1)
    assert await drained(one(2)) == 2
    assert await drained(other) == 1


class BodyError(Exception):
    """What goes wrong in a block."""


async def failing(bucket) -> None:
    if isinstance(bucket, AsyncTokenBucket):
        async with bucket:
            raise BodyError
    with bucket:
        raise BodyError


async def test_an_error_in_the_block_passes_and_the_token_stays_used(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=HOUR)
    with pytest.raises(BodyError):
        await failing(bucket)
    assert not await call(bucket.try_acquire)


# Reserving


async def test_a_reservation_tells_the_delay_and_leaves_the_waiting_to_the_caller(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=10)
    reservations = [await call(bucket.reserve) for _ in range(3)]
    assert [reservation.delay for reservation in reservations] == pytest.approx([0, 10, 20], abs=2)
    assert all(reservation.permit.name == bucket.name for reservation in reservations)
    assert bucket.name in repr(reservations[0])


async def test_a_cancelled_reservation_gives_its_turn_to_the_next_that_asks(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=10)
    reservations = [await call(bucket.reserve) for _ in range(3)]
    for reservation in reversed(reservations[1:]):
        await call(reservation.cancel)
        await call(reservation.cancel)
    assert (await call(bucket.reserve)).delay == pytest.approx(10, abs=2)


async def test_a_cancelled_reservation_with_others_after_it_changes_no_turn(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=10)
    reservations = [await call(bucket.reserve) for _ in range(3)]
    await call(reservations[1].cancel)
    assert (await call(bucket.reserve)).delay == pytest.approx(30, abs=2)


# Jobs


async def test_a_job_starts_books_comes_back_early_and_starts_at_its_turn(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=0.3)
    first = await call(bucket.ask)
    assert first.permit
    assert first.wait == 0
    booked = await call(bucket.ask, horizon=60)
    assert booked.permit is None
    assert booked.turn is not None
    assert 0.05 < booked.wait <= 0.3
    early = await call(bucket.ask, turn=booked.turn)
    assert (early.permit, early.turn) == (None, pytest.approx(booked.turn, abs=1))
    await asyncio.sleep(early.wait)
    assert (await call(bucket.ask, turn=booked.turn)).permit


async def test_a_job_beyond_the_horizon_is_told_to_ask_again(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=HOUR)
    await call(bucket.ask)
    answer = await call(bucket.ask, accept=1, horizon=60)
    assert (answer.permit, answer.turn) == (None, None)
    assert answer.wait == pytest.approx(HOUR, abs=30)
    await call(bucket.give_back, answer)


async def test_a_job_may_accept_a_little_wait(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=1)
    await call(bucket.ask)
    answer = await call(bucket.ask, accept=2, horizon=60)
    assert answer.permit
    assert 0 < answer.wait <= 1


async def test_what_a_job_does_not_use_goes_back(buckets: Kind) -> None:
    bucket = buckets(capacity=3, refill_frequency=HOUR)
    granted = await call(bucket.ask, cost=3)
    await call(bucket.give_back, granted)
    granted = await call(bucket.ask, cost=3)
    assert granted.permit
    booked = await call(bucket.ask, cost=2, horizon=10 * HOUR)
    await call(bucket.give_back, booked)
    assert (await call(bucket.ask, horizon=10 * HOUR)).wait == pytest.approx(HOUR, abs=30)


# Errors


@pytest.mark.parametrize(
    "error",
    [
        MaxSleepExceededError("api", 41.5, 30.0),
        MaxSleepExceededError("api"),
        NoTokensAvailableError("api"),
        LimiterUnavailableError("api", "ConnectionError"),
    ],
)
def test_errors_survive_pickling_and_copying_with_their_fields(error: Exception) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == str(error)
    assert isinstance(error, steindamm.SteindammError)
    assert "'api'" in str(error)
