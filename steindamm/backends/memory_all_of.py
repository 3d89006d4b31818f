"""Several limits at once in this process's memory: one decision under the one lock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from steindamm.backends.memory import Memory, MemorySemaphore, key_of
from steindamm.backends.states import KeptBucket
from steindamm.backends.terms import MICROSECONDS, bucket_terms, semaphore_terms, wall_clock
from steindamm.rules.all_of import BucketPart, Decision, Request, SemaphorePart, Verdict, decide
from steindamm.rules.bucket import BucketState
from steindamm.rules.semaphore import FOREVER, SemaphoreState
from steindamm.settings import BucketSettings, SemaphoreSettings


class BucketPlace:
    """Where a token bucket is kept.

    Parameters:
        settings: The bucket's.
        memory: Where it is.
    """

    def __init__(self, settings: BucketSettings, memory: Memory) -> None:
        self._key = key_of(settings)
        self._memory = memory
        self._terms = bucket_terms(settings, memory.clock() * MICROSECONDS - wall_clock())

    def take_out(self, now: float) -> BucketPart:
        """The bucket at this moment."""
        kept = self._memory.buckets.by_name.get(self._key)
        is_known = kept is not None and not kept.is_idle(now)
        return BucketPart(self._terms, kept.state if kept and is_known else BucketState(self._terms, now), now)

    def put_back(self, part: BucketPart, now: float) -> None:
        """Keep what has become of it; one that nobody has touched stays as it was."""
        if not part.touched:
            return
        buckets = self._memory.buckets
        kept = buckets.by_name.get(self._key) or buckets.add(self._key, KeptBucket(self._terms, now), now)
        kept.state, kept.terms, kept.used = part.state, self._terms, now


class SemaphorePlace:
    """Where a semaphore is kept.

    Parameters:
        settings: The semaphore's.
        memory: Where it is.
    """

    def __init__(self, settings: SemaphoreSettings, memory: Memory) -> None:
        self._key = key_of(settings)
        self._memory = memory
        self._semaphore = MemorySemaphore(settings, memory)
        self._terms = semaphore_terms(settings)._replace(lease=FOREVER, presence=FOREVER)

    def take_out(self, now: float) -> SemaphorePart:
        """The semaphore at this moment."""
        state = self._memory.semaphores.by_name.get(self._key)
        return SemaphorePart(self._terms, state or SemaphoreState(), now)

    def put_back(self, part: SemaphorePart, now: float) -> None:
        """Keep one that is new; those who have been handed a slot are to be told."""
        if part.touched and self._key not in self._memory.semaphores.by_name:
            self._memory.semaphores.add(self._key, part.state, now)
        for ticket, fence in part.handed:
            self._memory.untold[ticket] = self._semaphore, int(fence)


Place: TypeAlias = BucketPlace | SemaphorePlace


class MemoryAllOf:
    """Several limits in memory."""

    def __init__(self, settings: Sequence[BucketSettings | SemaphoreSettings], memory: Memory) -> None:
        self._memory = memory
        self._places: list[Place] = [
            BucketPlace(each, memory) if isinstance(each, BucketSettings) else SemaphorePlace(each, memory)
            for each in settings
        ]

    def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        with self._memory.lock:
            decision = self._decide(request)
            _tell_tickets(request, decision)
        if self._memory.untold:
            self._memory.tell()
        return decision

    def give_back(self, request: Request) -> None:
        """Return what was given; the tickets stand nowhere any more, and know it no sooner: one may be interrupted."""
        if self._memory.is_interrupted():
            self._memory.put_off(partial(self.give_back, request))
            return
        with self._memory.lock:
            self._decide(request)
            for ask in request.asks:
                if ask.asker is not None:
                    ask.asker.gone = True
        if self._memory.untold:
            self._memory.tell()

    def _decide(self, request: Request) -> Decision:
        memory = self._memory
        now = memory.clock() * MICROSECONDS
        if now > memory.sweep_at:
            memory.sweep(now)
        parts = [place.take_out(now) for place in self._places]
        decision = decide(parts, request)
        for place, part in zip(self._places, parts, strict=True):
            place.put_back(part, now)  # type: ignore[arg-type]
        return decision


def _tell_tickets(request: Request, decision: Decision) -> None:
    """Who has been given a slot holds it; who has been given nothing has gone."""
    for index, ask in enumerate(request.asks):
        ticket, given = ask.asker, decision.given[index]
        if ticket is None:
            continue
        if not given:
            ticket.gone = True
        elif decision.verdict is Verdict.GRANTED:
            ticket.take(int(given))


class AsyncMemoryAllOf:
    """Several limits in memory, asked by tasks. Nothing in it waits."""

    def __init__(self, settings: Sequence[BucketSettings | SemaphoreSettings], memory: Memory) -> None:
        self._all_of = MemoryAllOf(settings, memory)

    async def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        return self._all_of.ask(request)

    async def give_back(self, request: Request) -> None:
        """Return what was given; the tickets stand nowhere any more."""
        self._all_of.give_back(request)

    def abandon(self, request: Request) -> None:
        """The same, where nobody can await it."""
        self._all_of.give_back(request)
