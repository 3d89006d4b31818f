"""A cost is corrected after the work, when the true one is known."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from pathlib import Path

import pytest
from support.bucket_and_clock import US, Bucket
from support.buckets import Kind, call
from support.servers import Server, valkey_binary

from steindamm import AlreadySettledError, LimiterUnavailableError, SyncSemaphore

HOUR = 3_600.0

# The rule, at times that the test sets


def test_what_was_not_used_is_there_for_the_next() -> None:
    bucket = Bucket(capacity=10)
    bucket.take(8)
    bucket.settle(-5)
    assert bucket.drained() == 7


def test_what_was_used_beyond_it_is_taken() -> None:
    bucket = Bucket(capacity=10)
    bucket.take(2)
    bucket.settle(5)
    assert bucket.drained() == 3


def test_a_bucket_without_tokens_goes_into_debt_and_the_next_wait_for_it() -> None:
    bucket = Bucket(capacity=10)
    bucket.take(10)
    bucket.settle(20)
    assert bucket.take(1).wait == 21 * US


def test_more_than_the_capacity_never_comes_back() -> None:
    bucket = Bucket(capacity=10)
    bucket.settle(-50)
    assert bucket.drained() == 10


def test_one_with_a_turn_keeps_it_where_somebody_else_used_more() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turn = bucket.take().turn
    bucket.settle(100)
    assert bucket.look(turn) == 1


def test_a_booked_job_waits_for_the_pace_where_somebody_else_used_more() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turn = bucket.book().turn
    bucket.settle(3)
    bucket.now = turn
    assert bucket.come_back(turn, accept=10 * US).wait == 3 * US


@pytest.mark.parametrize("seed", range(5))
def test_with_costs_that_are_estimated_the_settled_tokens_are_the_limit(seed: int) -> None:
    """Callers estimate 1,000 tokens and use half as many to half as many again; 10,000 a second are allowed."""
    dice = random.Random(seed)
    rate, seconds = 10_000, 30
    bucket = Bucket(capacity=10_000, amount=100, step=0.01 * US, initial=0.0)
    used = 0.0
    number = itertools.count()
    callers = [(0.0, next(number), 0.0) for _ in range(40)]
    while callers:
        at, _, cost = heapq.heappop(callers)
        bucket.now = max(bucket.now, at)
        if cost:
            bucket.settle(cost - 1_000)
        start, cost = bucket.now + bucket.take(1_000).wait, dice.uniform(500, 1_500)
        if start < seconds * US:
            used += cost
            heapq.heappush(callers, (start + dice.uniform(0.1, 2) * US, next(number), cost))
    assert used == pytest.approx(rate * seconds, rel=0.02)


# The face, on real backends


async def test_a_permit_is_settled_for_less_and_for_more(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    permit = await call(bucket(6).acquire)
    await call(permit.settle, 1)
    assert await call(bucket(9).try_acquire)
    another = await call(bucket(0).acquire)
    await call(another.settle, 30)
    assert not await call(bucket.try_acquire)


async def test_it_is_settled_once(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    permit = await call(bucket(6).acquire)
    await call(permit.settle, 6)
    for again in (6, 1, 0):
        with pytest.raises(AlreadySettledError, match=f"{bucket.name}.*settled before"):
            await call(permit.settle, again)
    assert await call(bucket(4).try_acquire)
    assert not await call(bucket.try_acquire)


async def test_one_that_is_never_settled_keeps_its_cost(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    await call(bucket(6).acquire)
    assert not await call(bucket(5).try_acquire)


async def test_every_way_to_a_permit_gives_one_that_can_be_settled(buckets: Kind) -> None:
    bucket = buckets(capacity=40, refill_frequency=HOUR)(10)
    reservation = await call(bucket.reserve)
    answer = await call(bucket.ask)
    for permit in (await call(bucket.acquire), await call(bucket.try_acquire), reservation.permit, answer.permit):
        await call(permit.settle, 1)
    assert await call(bucket(36).try_acquire)
    elsewhere = bucket.permit_for(10)
    await call(elsewhere.settle, 0)
    assert await call(bucket.try_acquire)


@pytest.mark.parametrize("actual", [-1, -1e-9, float("nan"), float("inf"), 1e10])
async def test_what_is_no_number_of_tokens_is_refused(buckets: Kind, actual: float) -> None:
    permit = await call(buckets().acquire)
    with pytest.raises(ValueError, match=r"^actual must be"):
        await call(permit.settle, actual)
    await call(permit.settle, 1)


@pytest.mark.parametrize("actual", [None, "5", True])
async def test_what_is_no_number_at_all_is_refused(buckets: Kind, actual: object) -> None:
    permit = await call(buckets().acquire)
    with pytest.raises(TypeError, match=r"^actual must be a number"):
        await call(permit.settle, actual)


async def test_a_closed_bucket_is_settled_as_an_open_one(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    permit = await call(bucket(10).acquire)
    await call(bucket.close_for, 100)
    await call(permit.settle, 4)
    await call(bucket.reopen)
    assert await call(bucket(6).try_acquire)
    assert not await call(bucket.try_acquire)


def test_a_slot_can_not_be_settled() -> None:
    with SyncSemaphore(name="settled slots") as permit, pytest.raises(TypeError, match="stands for one slot"):
        permit.settle(1)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_permit_that_could_not_be_settled_can_be_later(tmp_path: Path, *, asynchronous: bool) -> None:
    with Server(valkey_binary(), tmp_path, "appendonly yes", "appendfsync always") as server:
        bucket = Kind(asynchronous, server.url, [])(capacity=10, refill_frequency=HOUR)
        permit = await call(bucket(10).acquire)
        server.kill()
        with pytest.raises(LimiterUnavailableError):
            await call(permit.settle, 3)
        server.start()
        await call(permit.settle, 3)
        assert await call(bucket(7).try_acquire)
        assert not await call(bucket.try_acquire)


async def test_a_task_that_is_cancelled_while_it_settles_has_settled(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=10, refill_frequency=HOUR)
    permit = await bucket(10).acquire()
    settling = asyncio.create_task(permit.settle(0))
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    for _ in range(200):
        if await bucket(10).try_acquire():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it was not settled")


async def test_a_turn_whose_cost_was_settled_does_not_go_back_as_well(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    reservation = await call(bucket(4).reserve)
    await call(reservation.permit.settle, 1)
    await call(reservation.cancel)
    assert (await call(bucket.state)).tokens == 9


async def test_a_cost_that_went_back_with_its_turn_is_not_settled_as_well(buckets: Kind) -> None:
    bucket = buckets(capacity=10, refill_frequency=HOUR)
    reservation = await call(bucket(4).reserve)
    await call(reservation.cancel)
    with pytest.raises(AlreadySettledError):
        await call(reservation.permit.settle, 1)
    assert (await call(bucket.state)).tokens == 10
