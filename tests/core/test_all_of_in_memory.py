"""Several limits in this process's memory, which others use alone: what they keep, and for how long."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from support.buckets import FakeClock

from steindamm.backends.memory import Memory, MemoryBucket, MemorySemaphore
from steindamm.backends.memory_all_of import MemoryAllOf
from steindamm.rules import bucket as of_bucket
from steindamm.rules.all_of import Ask, Decision, Request, Verdict, What
from steindamm.rules.semaphore import Stay
from steindamm.settings import BucketSettings, SemaphoreSettings
from steindamm.tickets import Ticket

TOKEN = Ask(1.0)
UNUSED = -1.0
DAY = 86_400.0


class Limits:
    """A bucket and a semaphore, alone and both at once, and the clock, which the test sets."""

    def __init__(self, bucket: dict[str, float], semaphore: dict[str, float]) -> None:
        self.clock = FakeClock()
        self.memory = memory = Memory(self.clock)
        settings = BucketSettings("tokens", **bucket), SemaphoreSettings("slots", **semaphore)
        self.bucket = MemoryBucket(settings[0], memory)
        self.semaphore = MemorySemaphore(settings[1], memory)
        self.both = MemoryAllOf(settings, memory)

    def ask(self, ticket: Ticket, stay: Stay = Stay.NO) -> Decision:
        return self.both.ask(Request((TOKEN, Ask(asker=ticket)), stay=stay))

    def give_back(self, ticket: Ticket) -> None:
        self.both.give_back(Request((Ask(1.0, UNUSED), Ask(0.0, UNUSED, ticket)), what=What.GIVE_BACK))

    @property
    def held(self) -> int:
        return self.semaphore.look().held


def ticket() -> Ticket:
    return Ticket("slots")


def test_each_slot_has_a_fencing_number_of_its_own() -> None:
    limits = Limits({"capacity": 9}, {"capacity": 2})
    first, second = ticket(), ticket()
    limits.ask(first)
    limits.ask(second)
    assert 0 < first.fence < second.fence


def test_a_slot_has_no_end_for_a_process_that_forgets_nothing_but_itself() -> None:
    limits = Limits({"capacity": 9}, {"capacity": 1, "expiry": 1})
    assert limits.ask(ticket()).verdict is Verdict.GRANTED
    limits.clock.now += 3_600
    assert limits.ask(ticket()).verdict is Verdict.REFUSED


def test_nor_has_a_place_in_line() -> None:
    limits = Limits({"capacity": 9}, {"capacity": 1, "expiry": 1})
    holding, waiting = ticket(), ticket()
    limits.ask(holding)
    limits.ask(waiting, Stay.LISTENING)
    limits.clock.now += 3_600
    limits.give_back(holding)
    assert waiting.woken


def test_a_slot_that_is_handed_to_one_who_has_gone_is_free_again() -> None:
    limits = Limits({"capacity": 9}, {"capacity": 1})
    holding, gone = ticket(), ticket()
    limits.ask(holding)
    limits.ask(gone, Stay.LISTENING)
    gone.gone = True
    limits.give_back(holding)
    assert limits.held == 0


def test_a_hand_over_that_is_still_to_be_told_wakes_nobody_who_was_refused_meanwhile() -> None:
    limits = Limits({"capacity": 9}, {"capacity": 1})
    limits.ask(ticket())
    refused = ticket()
    limits.memory.untold[refused] = limits.semaphore, 1
    assert limits.ask(refused).verdict is Verdict.REFUSED
    assert not refused.woken


def test_nor_who_has_given_up() -> None:
    limits = Limits({"capacity": 9}, {"capacity": 1})
    given_up = ticket()
    limits.memory.untold[given_up] = limits.semaphore, 1
    limits.give_back(given_up)
    assert not given_up.woken


def test_a_bucket_that_is_forgotten_starts_anew() -> None:
    limits = Limits({"capacity": 2, "initial_tokens": 0, "expiry": 60}, {})
    limits.bucket.ask(of_bucket.Request(of_bucket.What.TAKE, 1.0, 0.0))
    limits.clock.now += 3_600
    limits.memory.sweep_at = math.inf
    assert limits.ask(ticket()).verdict is Verdict.REFUSED


def test_windows_of_the_calendar_begin_by_the_wall_clock() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    limits = Limits({"capacity": 1, "refill_frequency": DAY, "window_start_time": start}, {})
    assert limits.ask(ticket()).verdict is Verdict.GRANTED
    until_midnight = DAY - time.time() % DAY
    apart = abs(limits.ask(ticket()).wait / 1e6 - until_midnight)
    assert min(apart, DAY - apart) < 60
