"""Those who sleep until their turn, and what becomes of the turn of one that is cancelled."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import threading
import time
from time import monotonic
from types import SimpleNamespace

import pytest
from support.buckets import NUMBERS, THREADS, Kind
from support.children import ends_well_in_a_child
from support.semaphores import until

from steindamm import AsyncTokenBucket, SyncTokenBucket
from steindamm.background import ended_in_background
from steindamm.rules.bucket import Decision, Verdict
from steindamm.sleepers import AsyncSleeper, Sleeper, SyncSleeper
from steindamm.turns import Turns

US = 1e6


class Asleep(Sleeper):
    """A sleeper that tells whether it was moved."""

    __slots__ = ("woken",)

    def __init__(self, wait: float, cost: float = 1.0) -> None:
        super().__init__(Decision(Verdict.GRANTED, wait * US, wait * US), cost)
        self.woken = 0

    def moved(self) -> None:
        self.woken += 1


def sleeping(*waits: float) -> tuple[Turns, list[Asleep]]:
    turns, sleepers = Turns(), [Asleep(wait) for wait in waits]
    for sleeper in sleepers:
        turns.join(sleeper)
    return turns, sleepers


def turns_of(sleepers: list[Asleep]) -> list[float]:
    return [sleeper.turn / US for sleeper in sleepers]


def test_a_cancelled_sleeper_moves_all_after_it_up_by_one() -> None:
    turns, (first, second, third, fourth) = sleeping(10, 20, 30, 40)
    turns.cancel(second)
    assert turns_of([first, third, fourth]) == [10, 20, 30]
    assert [first.woken, third.woken, fourth.woken] == [0, 1, 1]
    assert third.due == pytest.approx(monotonic() + 20, abs=1)


def test_the_last_of_their_turns_is_left_over() -> None:
    turns, sleepers = sleeping(10, 20, 30)
    turns.cancel(sleepers[0])
    left = turns.take_left_over()
    assert left.turn == 30 * US
    assert (left.gift.cost, left.gift.turn) == (1.0, 30 * US)
    assert turns.take_left_over() is None


def test_turns_left_over_are_given_back_from_the_last() -> None:
    turns, sleepers = sleeping(10, 20, 30)
    for sleeper in sleepers:
        turns.cancel(sleeper)
    assert [turns.take_left_over().turn / US for _ in range(3)] == [30, 20, 10]


def test_a_turn_goes_only_to_one_who_pays_the_same() -> None:
    turns, (one, other) = sleeping(10, 30)
    large = Asleep(20, cost=5.0)
    turns.join(large)
    turns.cancel(one)
    assert turns_of([large, other]) == [20, 10]


def test_a_turn_that_could_not_be_given_back_goes_to_the_next_that_comes() -> None:
    turns, (first, second) = sleeping(10, 20)
    turns.cancel(first)
    turns.keep_left_over(turns.take_left_over())
    newcomer = Asleep(50)
    assert turns.join(newcomer)
    assert turns_of([second, newcomer]) == [10, 20]
    assert turns.take_left_over().turn == 50 * US


def test_a_turn_left_over_that_has_passed_is_nobodys() -> None:
    turns, (late,) = sleeping(-1)
    turns.cancel(late)
    assert not turns.join(newcomer := Asleep(50))
    assert newcomer.turn == 50 * US


def test_who_was_interrupted_before_it_slept_gives_its_turn_away_too() -> None:
    turns, (second,) = sleeping(20)
    turns.cancel(Asleep(10))
    assert second.turn == 10 * US


def test_nobody_is_left_when_the_turns_have_come() -> None:
    turns, sleepers = sleeping(10, 20)
    for sleeper in sleepers:
        turns.leave(sleeper)
    turns.cancel(Asleep(5))
    assert turns_of(sleepers) == [10, 20]


def test_who_is_given_another_turn_for_a_lost_one_sleeps_among_those_of_its_time() -> None:
    turns, (lost, kept, last) = sleeping(10, 20, 40)
    turns.move(lost, Decision(Verdict.GRANTED, 30 * US, 30 * US, 7.0))
    turns.move(kept, Decision(Verdict.EARLY, 5 * US, 20 * US, 7.0))
    assert turns_of([lost, kept, last]) == [30, 20, 40]
    assert [sleeper.due - monotonic() for sleeper in (lost, kept)] == pytest.approx([30, 5], abs=1)
    turns.cancel(kept)
    assert turns_of([lost, last]) == [20, 30]


def test_who_looks_tells_when_the_clock_was_set_by_which_its_turn_was_told() -> None:
    def told(verdict: Verdict, wait: float, changed: float) -> float:
        return Sleeper(Decision(verdict, wait * US, 0.0, changed), 1.0).look.accept

    assert told(Verdict.GRANTED, 10, 0) == told(Verdict.GRANTED, 0, 0) == 0
    assert told(Verdict.GRANTED, 10, 7) == 7


def test_a_booked_turn_or_one_that_is_due_by_a_clock_of_the_buckets_own_is_not_lost() -> None:
    for verdict, wait in ((Verdict.BOOKED, 10), (Verdict.GRANTED, 0)):
        assert Sleeper(Decision(verdict, wait * US, 0.0, 7.0), 1.0).look.accept == math.inf


def test_a_thread_that_is_moved_up_wakes_at_its_new_turn() -> None:
    turns = Turns()
    first, second = (SyncSleeper(Decision(Verdict.GRANTED, wait, wait), 1.0) for wait in (0.05 * US, 100 * US))
    turns.join(first)
    turns.join(second)
    thread = threading.Thread(target=second.sleep)
    thread.start()
    turns.cancel(first)
    thread.join(10)
    assert not thread.is_alive()
    assert second.slept == pytest.approx(0.05, abs=0.02)


async def test_a_task_whose_loop_was_closed_is_passed_over() -> None:
    turns = Turns()

    async def sleeper(wait: float) -> AsyncSleeper:
        return AsyncSleeper(Decision(Verdict.GRANTED, wait, wait), 1.0)

    first, last = await sleeper(10 * US), await sleeper(30 * US)
    stale = await asyncio.to_thread(lambda: asyncio.run(sleeper(20 * US)))
    for each in (first, stale, last):
        turns.join(each)
    turns.cancel(first)
    assert (last.turn, stale.turn) == (10 * US, 20 * US)


def test_a_sleep_of_many_years_is_slept() -> None:
    sleeper = SyncSleeper(Decision(Verdict.GRANTED, 1e22, 1e22), 1.0)
    thread = threading.Thread(target=sleeper.sleep)
    thread.start()
    sleeper.due = 0.0
    sleeper.moved()
    thread.join(10)
    assert not thread.is_alive()


# With a limiter


async def test_a_cancelled_task_gives_its_turn_to_the_next_one(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=1, refill_frequency=0.4)
    await bucket.acquire()
    tasks = []
    for _ in range(3):
        tasks.append(asyncio.create_task(bucket.acquire()))
        await asyncio.sleep(0.02)
    tasks[0].cancel()
    assert (await tasks[1]).waited < 0.45
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await bucket.reserve()).delay <= 0.4


async def test_a_task_cancelled_in_the_middle_of_its_question_takes_no_turn(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=1, refill_frequency=60, max_sleep=0)
    await bucket.acquire()
    for pauses in range(12):
        task = asyncio.create_task(bucket.acquire())
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    sharing = getattr(bucket._backend, "_sharing", None)
    await until(lambda: sharing is None or sharing._caller is None)
    await ended_in_background(10)
    assert (await bucket.reserve()).delay <= 60


async def test_a_timeout_while_waiting_takes_no_turn(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=1, refill_frequency=60, max_sleep=0)
    await bucket.acquire()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await bucket.acquire()
    assert (await bucket.reserve()).delay <= 60


def test_an_interrupted_thread_gives_its_turn_back(sync_buckets: Kind) -> None:
    class InterruptionError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptionError

    bucket = sync_buckets(capacity=1, refill_frequency=60, max_sleep=0)
    bucket.acquire()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            with pytest.raises(InterruptionError):
                bucket.acquire()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert bucket.reserve().delay <= 60


def test_a_task_that_never_ended_gives_its_turn_to_the_next_when_it_is_collected() -> None:
    name = f"bucket-{next(NUMBERS)}"
    limiter = AsyncTokenBucket(name=name, capacity=1, refill_frequency=1.0)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(limiter.acquire())
    task = loop.create_task(limiter.acquire())
    loop.run_until_complete(asyncio.sleep(0.01))
    task._log_destroy_pending = False
    loop.close()
    del task, loop
    next_one = THREADS.submit(SyncTokenBucket(name=name, capacity=1, refill_frequency=1.0).acquire)
    time.sleep(0.05)
    gc.collect()
    assert next_one.result(10).waited < 1.5


async def test_tasks_that_are_cancelled_together_wake_each_that_stays_once() -> None:
    calls = []
    loop = asyncio.get_running_loop()
    turns = Turns()
    sleepers = [AsyncSleeper(Decision(Verdict.GRANTED, wait * US, wait * US), 1.0) for wait in range(100, 300)]
    for sleeper in sleepers:
        turns.join(sleeper)
        sleeper._loop = SimpleNamespace(call_soon_threadsafe=calls.append, is_closed=loop.is_closed)  # type: ignore[assignment]
    for sleeper in sleepers[:150]:
        turns.let_go(sleeper)
    assert turns.take_left_over().turn == 299 * US
    assert [sleeper.turn / US for sleeper in sleepers[150:]] == list(range(100, 150))
    assert len(calls) == 50


def test_sleepers_of_the_parent_are_not_the_childs() -> None:
    turns, sleepers = sleeping(10, 20)
    turns._lock.acquire()

    def cancel() -> None:
        turns.cancel(Asleep(5))
        assert turns_of(sleepers) == [10, 20]

    alive = ends_well_in_a_child(cancel)
    turns._lock.release()
    assert alive
