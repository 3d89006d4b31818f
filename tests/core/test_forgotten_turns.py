"""A server loses its memory, or a process stands still, while callers sleep until their turns."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from support.bucket_and_clock import US, Bucket
from support.buckets import Kind, call
from support.semaphores import until

from steindamm.rules.bucket import YOUNG, Request, Verdict, What, kept_until
from steindamm.rules.live import REMEMBERED
from steindamm.sleepers import AHEAD, OVERSLEPT
from steindamm.turns import FRESH


def told(bucket: Bucket, turn: float) -> float:
    """Seconds that one must wait who knows of a turn outstanding."""
    return bucket.ask(What.TAKE, turn=bucket.now + turn * US).wait / US


def seen(bucket: Bucket, turn: float, known: float = 0.0, cost: float = 1.0) -> float:
    """Seconds that one must wait who looks for a turn told when the clock had last been set at `known`."""
    return bucket.ask(What.LOOK, cost, known, turn=bucket.now + turn * US).wait / US


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


def test_turns_up_to_the_one_told_stand_and_those_after_it_are_lost_and_replaced() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    told(bucket, 7)
    assert [seen(bucket, turn) for turn in (3, 7, 7.5, 8, 30)] == [3, 7, 9, 10, 11]
    assert bucket.take().wait == 12 * US


def test_only_the_first_who_tells_is_believed() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    assert (told(bucket, 7), told(bucket, 30)) == (8, 9)


def test_a_turn_given_out_since_or_booked_stands() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    told(bucket, 7)
    bucket.take()
    assert bucket.state.live is not None
    assert seen(bucket, 9, known=bucket.state.live.changed) == 9
    assert seen(bucket, 9, known=math.inf) == 9


def test_turns_are_not_lost_where_nothing_was() -> None:
    bucket = Bucket(capacity=1, now=1e12)
    turns = [bucket.take().wait / US for _ in range(5)]
    assert [seen(bucket, turn) for turn in turns] == turns
    bucket.close(7)
    assert [seen(bucket, turn) for turn in turns] == [turn + 7 for turn in turns]


def test_turns_of_a_closed_bucket_stand_when_it_opens_early_however_few_have_asked() -> None:
    bucket = Bucket(capacity=5, step=600 * US, now=1e12)
    bucket.close(30)
    known = bucket.now
    turns = [bucket.take().wait / US for _ in range(3)]
    bucket.now += US
    bucket.reopen()
    assert [seen(bucket, turn, known) for turn in turns] == [0, 0, 0]
    assert bucket.drained() == 2


def test_turns_stand_when_tokens_come_back_to_a_bucket_that_was_closed() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    assert bucket.drained() == 5
    bucket.close(2)
    known = bucket.now
    turns = [bucket.take().wait / US for _ in range(3)]
    bucket.now += 2 * US
    bucket.settle(-4)
    assert [seen(bucket, turn, known) for turn in turns] == [0, 0, 0]
    assert bucket.drained() == 1


def test_turns_of_a_closed_bucket_stand_when_it_opens_early_and_is_closed_again() -> None:
    bucket = Bucket(capacity=2 * YOUNG, step=600 * US, now=1e12)
    for _ in range(YOUNG):
        bucket.take()
    bucket.close(30)
    known = bucket.now
    turns = [bucket.take().wait / US for _ in range(3)]
    bucket.now += US
    bucket.reopen()
    bucket.close(7)
    assert [seen(bucket, turn, known) for turn in turns] == [7, 7, 7]
    assert bucket.take(YOUNG - 3).wait == 7 * US


def test_turns_of_a_bucket_that_was_closed_are_lost_with_its_closing() -> None:
    """They are told in its own time, which the server's has long passed."""
    bucket = Bucket(capacity=2, now=1e12)
    waits = [seen(bucket, -3, known=1e11) for _ in range(4)]
    assert waits == [0, 0, 1, 2]
    bucket.close(7)
    assert [seen(bucket, -3, known=1e11) for _ in range(2)] == [10, 11]


def test_a_cost_that_no_bucket_holds_any_more_and_a_quota_lose_no_turn() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    told(bucket, 7)
    assert seen(bucket, 30, cost=6) == 8
    assert seen(Bucket(capacity=5, amount=0, step=0, now=2e12), 0, known=1e12) == 0


def test_it_is_as_ever_again_when_no_turn_can_be_outstanding() -> None:
    bucket = Bucket(capacity=5, now=1e12)
    told(bucket, 7)
    bucket.now += REMEMBERED - US
    bucket.take()
    assert bucket.state.live is not None
    assert kept_until(bucket.terms, bucket.state, bucket.now) >= 1e12 + REMEMBERED
    bucket.now += 2 * US
    bucket.take()
    assert bucket.state.live is None


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


async def test_those_whose_turns_nobody_told_in_time_get_others(redis_buckets: Kind) -> None:
    """As two processes, whose turns lie one after the other; the first asks first, and is given those of the other."""
    rate, each = 20.0, 12
    settings = {"name": "in blocks", "capacity": 1, "refill_frequency": 1 / rate}
    one, other = redis_buckets(**settings), redis_buckets(**settings, expiry=61)
    await call(one.acquire)
    starts: list[float] = []

    async def start(bucket: Any) -> None:
        await call(bucket.acquire)
        starts.append(time.monotonic())

    callers = [asyncio.create_task(start(one)) for _ in range(each)]
    await sleepers(one, lambda: each - len(starts))
    callers += [asyncio.create_task(start(other)) for _ in range(each)]
    await sleepers(other, lambda: each - max(0, len(starts) - each))
    for key, admin in redis_buckets.keys(one.name).items():
        admin.delete(key)
    forgot, to_start = time.monotonic(), 3 * each - len(starts)
    await asyncio.gather(*callers, *(start(one) for _ in range(each)))
    unseen = (FRESH + AHEAD) * rate
    assert max(starts) - forgot > (to_start - unseen - 3) / rate


async def test_those_who_sleep_before_a_closed_bucket_do_not_start_all_at_once(redis_buckets: Kind) -> None:
    rate, count = 20.0, 12
    bucket = redis_buckets(capacity=1, refill_frequency=1 / rate, max_sleep=0)
    await call(bucket.acquire)
    await call(bucket.close_for, 30)
    callers = [asyncio.create_task(call(bucket.acquire)) for _ in range(count)]
    await sleepers(bucket, lambda: count)
    await asyncio.sleep(count / rate)
    for key, admin in redis_buckets.keys(bucket.name).items():
        admin.delete(key)
    opened = time.monotonic()
    await call(bucket.acquire)
    await asyncio.gather(*callers)
    assert count - 2 < (time.monotonic() - opened) * rate < 20 * rate


async def test_another_turn_that_nobody_waits_for_any_more_is_given_back(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=1, refill_frequency=60)
    lost = Request(What.LOOK, 1.0, accept=1.0, turn=1.0)
    await call(bucket._backend.ask, lost)
    decision = await call(bucket._backend.ask, lost)
    assert round(decision.wait / US) == 60
    await call(bucket._backend._undo, lost, decision)
    assert (await call(bucket.state)).line_length == 0


async def sleepers(bucket: Any, count: Callable[[], int]) -> None:
    """Wait until so many sleep."""
    await until(lambda: len(bucket._backend.turns._sleepers) >= count(), patience=20)


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
