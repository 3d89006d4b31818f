"""What instant and strict limiters ask: backends in memory that count what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from steindamm.backends.memory import (
    AsyncMemoryBucket,
    AsyncMemorySemaphore,
    Memory,
    MemoryBucket,
    MemorySemaphore,
)
from steindamm.backends.memory_all_of import AsyncMemoryAllOf, MemoryAllOf
from steindamm.rules import all_of, bucket
from steindamm.rules.changes import Change
from steindamm.rules.semaphore import Place, Standing, Stay
from steindamm.settings import MOST_TOKENS, BucketSettings, SemaphoreSettings
from steindamm.testing.limits import Limits
from steindamm.tickets import Ticket

MOST_SLOTS = 2**31
_UNCHANGED = Memory()
STARTS = (bucket.What.TAKE, bucket.What.COME_BACK)


def boundless(settings: Any) -> Any:
    """The same settings with all the room that there can be."""
    if isinstance(settings, BucketSettings):
        return replace(settings, capacity=MOST_TOKENS, initial_tokens=MOST_TOKENS)
    return replace(settings, capacity=MOST_SLOTS)


class CountedBucket(MemoryBucket):
    """A bucket that tells what it gives."""

    def __init__(self, settings: BucketSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory)
        self._limiter, self._limits = settings.name, limits

    def take_at_once(self, cost: float) -> bool:
        """Nothing is given without being asked for and counted."""
        return False


class InstantBucket(CountedBucket):
    """A bucket without a limit."""

    def ask(self, request: bucket.Request) -> bucket.Decision:
        """Grant it."""
        if request.what in STARTS:
            self._limits.took(self._limiter, request.cost)
        return bucket.Decision(bucket.Verdict.GRANTED, 0.0, 0.0)


class StrictBucket(CountedBucket):
    """A bucket at which nobody waits."""

    def ask(self, request: bucket.Request) -> bucket.Decision:
        """Decide on it as for a caller that accepts no wait."""
        decision = super().ask(request._replace(accept=0.0))
        if request.what in STARTS and decision.verdict is bucket.Verdict.GRANTED:
            self._limits.took(self._limiter, request.cost)
        return decision


class AwaitedBucket(AsyncMemoryBucket):
    """One of these, asked by tasks."""

    def __init__(self, settings: BucketSettings, memory: Memory, asked: CountedBucket) -> None:
        super().__init__(settings, memory)
        self._asked = asked

    def take_at_once(self, cost: float) -> bool:
        """Nothing is given without being asked for and counted."""
        return self._asked.take_at_once(cost)

    async def ask(self, request: bucket.Request) -> bucket.Decision:  # type: ignore[override]
        """Decide on one request."""
        return self._asked.ask(request)


class StrictSemaphore(MemorySemaphore):
    """A semaphore that counts the slots it gives. Those who ask have no patience: see `swapped`."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory)
        self._limiter, self._limits = settings.name, limits

    def enter_at_once(self) -> Ticket | None:
        """Nobody takes the short way."""
        return None

    def enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        """Ask for a slot."""
        place = super().enter(ticket, number, stay, slack)
        if place.standing is Standing.HOLDING:
            self._limits.took(self._limiter, 1.0)
        return place


class InstantSemaphore(StrictSemaphore):
    """A semaphore without a limit, which nothing closes or changes."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(boundless(settings), memory, limits)

    def change(self, _: Change) -> None:
        """It goes on granting."""


class AwaitedSemaphore(AsyncMemorySemaphore):
    """One of these, asked by tasks."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory, asked: MemorySemaphore) -> None:
        super().__init__(settings, memory)
        self._semaphore = asked
        self.enter_at_once = asked.enter_at_once
        self.leave_at_once = asked.leave_at_once


class StrictAllOf(MemoryAllOf):
    """Several limits, at which nobody waits."""

    def __init__(self, settings: Sequence[Any], memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory)
        self._limiters, self._limits = [each.name for each in settings], limits

    def ask(self, request: all_of.Request) -> all_of.Decision:
        """Decide on it as for a caller that accepts no wait; a job may book, or keep its place."""
        request = request._replace(accept=0.0)
        if request.stay is Stay.LISTENING:
            request = request._replace(stay=Stay.NO, horizon=0.0)
        decision = super().ask(request)
        if decision.verdict is all_of.Verdict.GRANTED:
            for limiter, ask in zip(self._limiters, request.asks, strict=True):
                self._limits.took(limiter, ask.cost or 1.0)
        return decision


class InstantAllOf(StrictAllOf):
    """Several limits that are none, whatever is changed of one of them alone."""

    def __init__(self, settings: Sequence[Any], _: Memory, limits: Limits) -> None:
        super().__init__([boundless(each) for each in settings], _UNCHANGED, limits)


class AwaitedAllOf(AsyncMemoryAllOf):
    """One of these, asked by tasks."""

    def __init__(self, settings: Sequence[Any], memory: Memory, asked: MemoryAllOf) -> None:
        super().__init__(settings, memory)
        self._all_of = asked
