"""What local limiters keep in this process's memory, and for how long."""

from __future__ import annotations

import gc
import math
import time
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from support.buckets import FakeClock

from steindamm import tickets
from steindamm.backends import memory as backend
from steindamm.backends.memory import Memory, MemoryBucket, MemorySemaphore
from steindamm.rules.bucket import Request, Verdict, What
from steindamm.rules.changes import Change, Kind
from steindamm.rules.semaphore import Standing, Stay
from steindamm.settings import BucketSettings, SemaphoreSettings
from steindamm.tickets import Ticket

TAKE = Request(What.TAKE, 1.0, 0.0)
HOUR = 3_600


def bucket(memory: Memory, name: str, **settings: Any) -> MemoryBucket:
    return MemoryBucket(BucketSettings(name, **settings), memory)


def test_idle_names_leave_nothing_once_others_come() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    for number in range(1_000):
        bucket(memory, f"old-{number}").ask(TAKE)
    clock.now += HOUR
    for number in range(1_000):
        bucket(memory, f"new-{number}").ask(TAKE)
    assert not [name for name in memory.buckets.by_name if name.startswith("old")]


@pytest.mark.parametrize("at_once", [False, True])
def test_idle_names_leave_nothing_while_another_is_used(*, at_once: bool) -> None:
    clock = FakeClock()
    memory = Memory(clock)
    for number in range(1_000):
        bucket(memory, f"old-{number}").ask(TAKE)
    clock.now += HOUR
    busy = bucket(memory, "busy", capacity=1_000, refill_frequency=HOUR)
    for _ in range(100):
        clock.now += 0.11
        assert (at_once and busy.take_at_once(1.0)) or busy.ask(TAKE).verdict is Verdict.GRANTED
    assert set(memory.buckets.by_name) == {"busy"}


def test_names_that_come_and_go_never_pile_up() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    most = 0
    for number in range(5_000):
        clock.now += 0.6
        bucket(memory, str(number), expiry=60).ask(TAKE)
        most = max(most, len(memory.buckets.by_name))
    assert most < 200


def test_a_bucket_that_is_not_full_yet_is_not_forgotten() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    slow = bucket(memory, "slow", capacity=100, refill_frequency=36)
    assert slow.ask(Request(What.TAKE, 100.0)).verdict is Verdict.GRANTED
    clock.now += 130
    for number in range(1_000):
        bucket(memory, str(number)).ask(TAKE)
    verdicts = [slow.ask(TAKE).verdict for _ in range(5)]
    assert verdicts == [Verdict.GRANTED] * 3 + [Verdict.REFUSED] * 2


def test_a_bucket_is_remembered_for_its_expiry_and_then_starts_anew() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    empty = bucket(memory, "empty", initial_tokens=0, capacity=2, expiry=60)
    empty.ask(TAKE)
    clock.now += 50
    assert empty.ask(TAKE).verdict is Verdict.GRANTED
    clock.now += 70
    assert empty.ask(TAKE).verdict is Verdict.REFUSED


def test_so_does_one_that_nobody_has_come_to_drop() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    empty = bucket(memory, "empty", initial_tokens=0, capacity=2, expiry=60)
    empty.ask(TAKE)
    memory.sweep_at = math.inf
    clock.now += HOUR
    assert empty.look().tokens == 0
    assert empty.ask(TAKE).verdict is Verdict.REFUSED


def test_limiters_that_used_a_state_share_another_once_it_is_dropped() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    first, second = (bucket(memory, "shared", capacity=1, refill_frequency=HOUR) for _ in range(2))
    first.ask(TAKE)
    first.ask(Request(What.SETTLE, -1.0 + 1e-10))
    clock.now += 61
    memory.sweep(clock.now * 1e6)
    assert not memory.buckets.by_name
    assert second.ask(TAKE).verdict is Verdict.GRANTED
    assert not first.take_at_once(0.5)
    assert first.ask(TAKE).verdict is Verdict.REFUSED


def test_a_limiter_takes_at_once_what_another_of_its_name_has_left() -> None:
    memory = Memory(FakeClock())
    bucket(memory, "shared", capacity=3).ask(TAKE)
    assert [bucket(memory, "shared", capacity=3).take_at_once(1.0) for _ in range(3)] == [True, True, False]


def semaphore(memory: Memory, **settings: Any) -> MemorySemaphore:
    return MemorySemaphore(SemaphoreSettings("shared", **settings), memory)


def test_semaphores_that_used_a_state_share_another_once_it_is_dropped() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    first, second = (semaphore(memory, capacity=1) for _ in range(2))
    ticket = Ticket("shared")
    first.enter(ticket, 0.0, Stay.NO)
    first.leave(ticket)
    clock.now += 1
    memory.sweep(clock.now * 1e6)
    assert not memory.semaphores.by_name
    assert second.enter(Ticket("shared"), 0.0, Stay.NO).standing is Standing.HOLDING
    assert first.enter_at_once() is None
    assert first.enter(Ticket("shared"), 0.0, Stay.NO).standing is Standing.OUT


def test_a_semaphore_gives_at_once_what_another_of_its_name_has_left() -> None:
    memory = Memory(FakeClock())
    semaphore(memory, capacity=3).enter(Ticket("shared"), 0.0, Stay.NO)
    given = [semaphore(memory, capacity=3).enter_at_once() for _ in range(3)]
    assert [ticket is not None for ticket in given] == [True, True, False]
    assert given[0] is not None
    assert semaphore(memory, capacity=3).leave_at_once(given[0])
    assert semaphore(memory, capacity=3).enter_at_once() is not None


def test_a_slot_is_not_given_back_at_once_while_somebody_waits_for_it() -> None:
    memory = Memory(FakeClock())
    slots = semaphore(memory, capacity=2)
    slots.enter(Ticket("shared"), 0.0, Stay.NO)
    held, waiting = slots.enter_at_once(), Ticket("shared")
    assert held is not None
    slots.enter(waiting, 0.0, Stay.LISTENING)
    assert not slots.leave_at_once(held)
    slots.leave(held)
    assert waiting.woken


def test_windows_of_the_calendar_that_are_overridden_begin_by_the_wall_clock() -> None:
    memory = Memory(FakeClock())
    start = {"window_start_time": datetime(2024, 1, 1, tzinfo=UTC)}
    daily = bucket(memory, "window", capacity=1, refill_frequency=24 * HOUR, **start)
    hourly = BucketSettings("window", capacity=1, refill_frequency=HOUR, **start)
    daily.change(Change(Kind.OVERRIDE, daily.numbers_for(hourly)))
    assert daily.ask(TAKE).verdict is Verdict.GRANTED
    apart = abs(daily.ask(TAKE).wait / 1e6 - (HOUR - time.time() % HOUR))
    assert min(apart, HOUR - apart) < 60


def test_slots_and_places_in_line_have_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = MemorySemaphore(SemaphoreSettings("slots", capacity=1, expiry=1), Memory())
    holding, waiting = Ticket("slots"), Ticket("slots")
    holding.take(int(slots.enter(holding, 0.0, Stay.NO).number))
    slots.enter(waiting, 0.0, Stay.LISTENING)
    monkeypatch.setattr(backend, "monotonic", lambda: time.monotonic() + HOUR)
    slots.enter(Ticket("slots"), 0.0, Stay.NO)
    assert not waiting.woken
    slots.leave(holding)
    assert waiting.woken


def test_who_finds_no_slot_is_told_for_how_long_they_were_held_where_they_were_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    for module in (backend, tickets):
        monkeypatch.setattr(module, "monotonic", clock)
    slots = MemorySemaphore(SemaphoreSettings("slots", capacity=2), Memory(clock))
    slots.enter(Ticket("slots"), 0.0, Stay.NO)

    def hold(seconds: float, *, used: bool) -> None:
        ticket = Ticket("slots")
        ticket.take(int(slots.enter(ticket, 0.0, Stay.NO).number))
        clock.now += seconds
        slots.leave(ticket, used=used)

    def wait() -> float:
        holding = Ticket("slots")
        holding.take(int(slots.enter(holding, 0.0, Stay.NO).number))
        wait = slots.enter(Ticket("slots"), 0.0, Stay.NO).wait
        slots.leave(holding, used=False)
        return wait / 1e6

    hold(0.05, used=True)
    assert wait() == pytest.approx(0.05 / 2)
    hold(0.09, used=False)
    assert wait() == pytest.approx(0.05 / 2)


def test_a_name_in_a_group_is_another_one() -> None:
    memory = Memory(FakeClock())
    alone = bucket(memory, "api", capacity=1)
    grouped = MemoryBucket(BucketSettings("api", capacity=1, group="customers"), memory)
    assert [each.ask(TAKE).verdict for each in (alone, grouped)] == [Verdict.GRANTED] * 2


def test_a_slot_stays_with_one_who_had_it_before_the_hand_over_was_told() -> None:
    memory = Memory(FakeClock())
    slots, holding = MemorySemaphore(SemaphoreSettings("slots"), memory), Ticket("slots")
    holding.take(int(slots.enter(holding, 0.0, Stay.NO).number))
    memory.untold[holding] = slots, holding.fence
    memory.tell()
    assert (slots.look().held, memory.untold) == (1, {})


def test_the_turns_of_a_name_go_with_those_who_use_them() -> None:
    memory = Memory(FakeClock())
    turns = bucket(memory, "turns").turns
    assert bucket(memory, "turns").turns is turns
    del turns
    gc.collect()
    assert len(memory.turns) == 0


def test_a_name_takes_no_more_than_400_bytes() -> None:
    memory = Memory()
    buckets = [bucket(memory, f"name-{number}") for number in range(10_000)]
    tracemalloc.start()
    try:
        for each in buckets:
            each.ask(TAKE)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / len(buckets) <= 400
