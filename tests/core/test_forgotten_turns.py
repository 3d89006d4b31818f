"""A server loses its memory, or a process stands still, while callers sleep until their turns."""

from __future__ import annotations

import asyncio
import time

from support.bucket_and_clock import US, Bucket
from support.buckets import Kind, call

from steindamm.rules.bucket import REMEMBERED, YOUNG, Request, Verdict, What
from steindamm.turns import OVERSLEPT


def told(bucket: Bucket, turn: float) -> float:
    """Seconds that one must wait who knows of a turn outstanding."""
    return bucket.ask(What.TAKE, turn=bucket.now + turn * US).wait / US


def test_a_new_bucket_that_is_told_of_a_turn_gives_out_later_ones() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    assert told(bucket, 7) == 8
    assert bucket.take().wait == 9 * US


def test_a_turn_between_two_refills_is_behind_the_one_and_before_the_other() -> None:
    assert told(Bucket(capacity=5, now=1e12), 7.4) == 8


def test_a_turn_that_it_knows_or_that_has_passed_changes_nothing() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    assert told(bucket, -3) == 0
    waits = [bucket.take().wait / US for _ in range(6)]
    assert told(bucket, waits[-1]) == waits[-1] + 1


def test_a_bucket_that_is_not_new_believes_itself() -> None:
    """Its line may end sooner because tokens were given back."""
    bucket = Bucket(capacity=2 * YOUNG, now=1e12)
    for _ in range(YOUNG):
        bucket.take()
    assert told(bucket, 7) == 0


async def test_it_is_new_for_as_long_on_a_server(redis_buckets: Kind) -> None:
    def teller(now: float) -> Request:
        return Request(What.TAKE, 1.0, accept=0.0, turn=now + 7 * US)

    for requests, wait in ((YOUNG - 1, 8), (YOUNG, 0)):
        bucket = redis_buckets(capacity=2 * YOUNG, refill_frequency=1)
        for _ in range(requests):
            decision = await call(bucket._backend.ask, Request(What.TAKE, 1.0))
        told = await call(bucket._backend.ask, teller(decision.turn))
        assert round(told.wait / US) == wait


def test_a_clock_that_was_set_back_as_well_stalls_nobody_for_long() -> None:
    assert told(Bucket(capacity=5, now=1e12), 3_600) <= REMEMBERED / US + 1


def test_a_quota_knows_no_turns() -> None:
    assert Bucket(capacity=5, amount=0, step=0, now=1e12).ask(What.TAKE, turn=2e12).verdict is Verdict.GRANTED


async def test_a_server_that_lost_its_memory_is_told_of_the_turns_of_those_who_sleep(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=1, refill_frequency=0.2)
    await call(bucket.acquire)
    sleepers = [asyncio.create_task(call(bucket.acquire)) for _ in range(5)]
    await asyncio.sleep(0.1)
    for key, admin in redis_buckets.keys(bucket.name).items():
        admin.delete(key)
    newcomer = await call(bucket.acquire)
    assert newcomer.waited > 0.7
    assert all(sleeper.done() for sleeper in sleepers)


async def test_those_who_slept_in_a_process_that_stood_still_do_not_start_all_at_once(async_buckets: Kind) -> None:
    rate, count = 20, 40
    bucket = async_buckets(capacity=1, refill_frequency=1 / rate)
    starts: list[float] = []

    async def start() -> None:
        await bucket.acquire()
        starts.append(time.monotonic())

    callers = [asyncio.create_task(start()) for _ in range(count)]
    await asyncio.sleep(0.05)
    time.sleep(2.5)  # noqa: ASYNC251
    went_on = time.monotonic()
    await asyncio.gather(*callers)
    at_once = sum(went_on <= at < went_on + 0.1 for at in starts)
    assert at_once <= 1 + (OVERSLEPT + 0.1) * rate + 2
    assert max(starts) - went_on > 0.5 * (count - OVERSLEPT * rate) / rate
