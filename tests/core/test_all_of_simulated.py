"""Many callers of several limits: who is served how fast, and how far the limits are used.

No real time passes: the callers are in a heap, and how late they come is a number.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from support.limits import Bucket, Limit, Semaphore, ask_all

from steindamm.rules import semaphore
from steindamm.rules.all_of import Ask, Request, Verdict
from steindamm.rules.bucket import BucketTerms
from steindamm.rules.semaphore import SemaphoreTerms, Stay

US = 1e6
HOUR = 3_600 * US
FOREVER = math.inf
HAND_OVER = 0.0003
"""Seconds until one who is handed a slot asks again."""


def a_bucket(rate: float, capacity: float = 1.0) -> Bucket:
    return Bucket(BucketTerms(capacity, 1.0, US / rate, capacity, keep=60 * US))


def a_semaphore(capacity: int) -> Semaphore:
    return Semaphore(SemaphoreTerms(capacity, FOREVER, FOREVER))


@dataclass
class Caller:
    """One who must pass some limits, and then holds what it got for a while."""

    who: str
    needs: list[str]
    holds: float
    turns: list[float] = field(default_factory=list)
    tickets: dict[int, str] = field(default_factory=dict)
    asks: int = 0
    again: bool = False


@dataclass
class Start:
    """A start, at a time in seconds."""

    at: float
    caller: Caller


class World:
    """Limits by name, callers on their way, and a clock.

    Parameters:
        limits: The limits.
        late: Seconds that a caller is late at most when it comes back.
    """

    def __init__(self, late: float = 0.002, **limits: Limit) -> None:
        self.limits = limits
        self.now = 1_000.0
        self.starts: list[Start] = []
        self.asked = 0
        self._late = late
        self._chance = random.Random(7)
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._listening: dict[str, Caller] = {}

    def come(self, who: str, *needs: str, after: float = 0.0, holds: float = 0.0, again: bool = False) -> None:
        """A caller comes; `again` and again, each time that it has ended."""
        needs = tuple(self._chance.sample(needs, len(needs)))
        caller = Caller(who, sorted(needs), holds, [0.0] * len(needs))
        self._at(self.now + after, lambda: self._ask(caller, again))

    def run(self, seconds: float = FOREVER) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()

    def starts_of(self, who: str) -> list[Start]:
        return sorted((start for start in self.starts if start.caller.who == who), key=lambda start: start.at)

    def rate_of(self, who: str) -> float:
        starts = self.starts_of(who)
        return (len(starts) - 1) / (starts[-1].at - starts[0].at)

    def asks_of(self, who: str) -> float:
        """Requests for each start."""
        starts = self.starts_of(who)
        return sum(start.caller.asks for start in starts) / len(starts)

    def assert_that_no_limit_was_exceeded(self) -> None:
        for name, limit in self.limits.items():
            if isinstance(limit, Bucket):
                times = sorted(start.at for start in self.starts if name in start.caller.needs)
                assert_bound(limit.terms, times)

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _ask(self, caller: Caller, again: bool) -> None:
        self.asked += 1
        caller.asks += 1
        limits = [self.limits[name] for name in caller.needs]
        request = Request(tuple(self._asks(caller, limits)), 0.05 * US, HOUR, Stay.LISTENING)
        verdict, which, wait, given, _ = ask_all(limits, math.floor(self.now * US), request, self._hand_over)
        if verdict is Verdict.GRANTED:
            start = self.now + wait / US
            self.starts.append(Start(start, caller))
            self._at(start + caller.holds, lambda: self._end(caller, again))
            return
        assert verdict is Verdict.WAITING
        caller.turns[which] = math.ceil(given[which])
        caller.tickets = {index: ticket for index, ticket in caller.tickets.items() if given[index]}
        if isinstance(limits[which], Semaphore):
            self._listening[caller.tickets[which]] = caller
        else:
            back = self.now + wait / US + self._chance.uniform(0, self._late)
            self._at(back, lambda: self._ask(caller, again))
        caller.again = again  # type: ignore[attr-defined]

    def _asks(self, caller: Caller, limits: list[Limit]) -> Any:
        for index, limit in enumerate(limits):
            if isinstance(limit, Bucket):
                yield Ask(1.0, caller.turns[index])
            else:
                yield Ask(0.0, caller.turns[index], caller.tickets.setdefault(index, f"ticket-{next(self._numbers)}"))

    def _hand_over(self, ticket: str) -> None:
        caller = self._listening.pop(ticket)
        self._at(self.now + HAND_OVER, lambda: self._ask(caller, caller.again))  # type: ignore[attr-defined]

    def _end(self, caller: Caller, again: bool) -> None:
        for index, ticket in caller.tickets.items():
            limit = self.limits[caller.needs[index]]
            _, handed = semaphore.leave(limit.terms, limit.state, math.floor(self.now * US), ticket, caller.holds * US)
            for waiter, _ in handed:
                self._hand_over(waiter)
        if again:
            self.come(caller.who, *caller.needs, holds=caller.holds, again=True)


def assert_bound(terms: BucketTerms, times: list[float]) -> None:
    """No window holds more than the capacity and what is refilled in it."""
    first = 0
    for last, end in enumerate(times):
        while True:
            refills = math.floor((end - times[first]) * US / terms.step + 1e-6) + 1
            if last - first + 1 <= terms.capacity + refills * terms.amount:
                break
            raise AssertionError(f"{last - first + 1} starts within {end - times[first]} s")
        if last - first > 4 * terms.capacity + 400:
            first += 1


# Tenants


def tenants(*, with_a: bool) -> World:
    """A has 500 waiting, B sends 20 five seconds later; each has 10/s of its own, and 15/s in common."""
    world = World(a=a_bucket(10), b=a_bucket(10), shared=a_bucket(15))
    for _ in range(500 if with_a else 0):
        world.come("A", "a", "shared")
    for _ in range(20):
        world.come("B", "b", "shared", after=5.0)
    world.run()
    world.assert_that_no_limit_was_exceeded()
    return world


def test_a_tenant_with_hundreds_waiting_leaves_another_its_share_of_the_common_limit() -> None:
    """B gets about half of the 15/s while both want more, where it would have its own 10/s without A."""
    alone, both = tenants(with_a=False), tenants(with_a=True)
    assert 9.8 <= alone.rate_of("B") <= 10.2
    assert 6.5 <= both.rate_of("B") <= 8.6
    assert both.asks_of("B") <= 3.3
    first, *_, last = [start.at for start in both.starts_of("B")]
    assert sum(first <= start.at <= last for start in both.starts) >= 0.97 * 15 * (last - first)


def test_the_tenant_that_waits_uses_its_own_limit_to_the_full() -> None:
    world = tenants(with_a=True)
    assert world.starts_of("A")[-1].at - 1_000.0 <= 500 / 10 + 20 / 15
    assert world.asks_of("A") <= 2.2


# Three limits


def test_two_hundred_callers_of_three_limits_use_the_tightest_to_the_full() -> None:
    world = World(a=a_bucket(200, 10), b=a_bucket(100, 10), c=a_bucket(150, 10))
    for _ in range(200):
        world.come("all", "a", "b", "c", holds=0.001, again=True)
    world.run(20)
    assert len(world.starts) >= 0.99 * 100 * 20
    assert world.asked <= 2.05 * len(world.starts) + 200
    world.assert_that_no_limit_was_exceeded()


def test_equal_limits_without_any_burst_are_used_to_the_full() -> None:
    world = World(a=a_bucket(100), b=a_bucket(100), c=a_bucket(100))
    for _ in range(100):
        world.come("all", "a", "b", "c", again=True)
    world.run(20)
    assert len(world.starts) >= 0.97 * 100 * 20
    world.assert_that_no_limit_was_exceeded()


# Slots


def in_use(world: World, name: str, begin: float, end: float) -> float:
    """How many slots of a semaphore were in use, on average."""
    held = [
        max(0.0, min(end, start.at + start.caller.holds) - max(begin, start.at))
        for start in world.starts
        if name in start.caller.needs
    ]
    return sum(held) / (end - begin)


def test_slots_are_never_idle_because_of_one_who_waits_for_tokens() -> None:
    """Twenty wait for a limit of one in ten seconds; those who need but a slot have them all."""
    world = World(slow=a_bucket(0.1), slots=a_semaphore(3))
    for _ in range(20):
        world.come("both", "slow", "slots", holds=0.2)
    for _ in range(10):
        world.come("slot", "slots", holds=0.2, again=True)
    world.run(30)
    assert in_use(world, "slots", 1_001.0, 1_030.0) >= 2.98
    assert len(world.starts_of("both")) == 3


def test_where_slots_are_short_they_are_all_in_use_and_where_tokens_are_those_are() -> None:
    for rate, expected in ((40, 25), (10, 10), (25, 25)):
        world = World(tokens=a_bucket(rate), slots=a_semaphore(5))
        for _ in range(50):
            world.come("both", "tokens", "slots", holds=0.2, again=True)
        world.run(40)
        assert len(world.starts) >= 0.985 * expected * 40
        assert world.asks_of("both") <= 3.1
        world.assert_that_no_limit_was_exceeded()


def test_callers_of_two_semaphores_never_pass_slots_around_without_end() -> None:
    """Two tenants of two slots each share three: all three are in use, and each starts after a few requests."""
    world = World(a=a_semaphore(2), b=a_semaphore(2), common=a_semaphore(3))
    for _ in range(50):
        world.come("A", "a", "common", holds=0.2, again=True)
        world.come("B", "b", "common", holds=0.15, again=True)
    world.run(30)
    assert in_use(world, "common", 1_001.0, 1_030.0) >= 2.95
    assert 0.85 <= world.rate_of("A") / world.rate_of("B") <= 1.15
    assert max(world.asks_of("A"), world.asks_of("B")) <= 3.2


def test_who_needs_two_semaphores_that_others_keep_full_starts_all_the_same() -> None:
    world = World(x=a_semaphore(3), y=a_semaphore(5))
    for _ in range(10):
        world.come("both", "x", "y", holds=0.2, again=True)
    for _ in range(20):
        world.come("x", "x", holds=0.15, again=True)
        world.come("y", "y", holds=0.2, again=True)
    world.run(30)
    assert world.rate_of("both") >= 2
    assert world.asks_of("both") <= 6
    assert in_use(world, "x", 1_001.0, 1_030.0) >= 0.8 * 3
    assert in_use(world, "y", 1_001.0, 1_030.0) >= 0.97 * 5


def test_who_needs_tokens_and_slots_that_others_keep_short_starts_all_the_same() -> None:
    world = World(tokens=a_bucket(20), slots=a_semaphore(5))
    for _ in range(10):
        world.come("both", "tokens", "slots", holds=0.2, again=True)
    for _ in range(20):
        world.come("token", "tokens", holds=0.01, again=True)
        world.come("slot", "slots", holds=0.2, again=True)
    world.run(30)
    assert world.rate_of("both") >= 2
    assert world.rate_of("both") + world.rate_of("token") >= 0.9 * 20
    assert in_use(world, "slots", 1_001.0, 1_030.0) >= 0.93 * 5
