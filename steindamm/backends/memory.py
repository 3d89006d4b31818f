"""Limiters in this process's memory: one state a name, one lock, and no thread but for a semaphore that is closed."""

from __future__ import annotations

import math
import os
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import RLock, Timer
from typing import cast
from weakref import WeakValueDictionary

from steindamm.backends.states import NO_SLOTS, NOT_KEPT, KeptBucket, KeptBuckets, KeptSemaphores
from steindamm.backends.terms import MICROSECONDS, bucket_terms, on_clock, semaphore_terms, wall_clock
from steindamm.clock import monotonic
from steindamm.rules import bucket, deciding, semaphore
from steindamm.rules.bucket import take_at_once
from steindamm.rules.changes import Change, override_of
from steindamm.rules.changes import change as change_bucket
from steindamm.rules.semaphore import enter_at_once, leave_at_once
from steindamm.rules.semaphore_changes import change as change_semaphore
from steindamm.settings import BucketSettings, SemaphoreSettings
from steindamm.state import MOST_LISTED, SemaphoreState, TokenBucketState, holder, seen_bucket, seen_semaphore
from steindamm.tickets import PROCESS, Ticket, blank_ticket
from steindamm.turns import Turns

Clock = Callable[[], float]
SWEEP_EVERY = 0.1 * MICROSECONDS
LOOKS = 100
"""States looked at in one sweep, so that nobody waits long for it."""


def key_of(settings: BucketSettings | SemaphoreSettings) -> str:
    """By which a limiter's state is kept: its name, which no key of a limiter of a group can be."""
    return settings.name if settings.group is None else settings.key


class Memory:
    """The states of all local limiters that share a clock.

    Parameters:
        clock: Gives the time in seconds; a test passes its own.

    Attributes:
        is_interrupted: Tells whether this thread is in the middle of a decision, as where the garbage collector
            interrupts it: that closes blocks and waits that nobody holds any more, which then leave.
    """

    def __init__(self, clock: Clock = monotonic) -> None:
        self.clock = clock
        self.lock = RLock()
        self.is_interrupted: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]
        self.buckets = KeptBuckets()
        self.semaphores = KeptSemaphores()
        self.turns: WeakValueDictionary[str, Turns] = WeakValueDictionary()
        self.untold: dict[Ticket, tuple[MemorySemaphore, int]] = {}
        self.openings: dict[str, Timer] = {}
        self.sweep_at = 0.0
        os.register_at_fork(
            before=self.lock.acquire, after_in_parent=self.lock.release, after_in_child=self._after_fork
        )

    def _after_fork(self) -> None:
        """The child starts from its parent's buckets; the slots are held by threads it does not have."""
        self.lock.release()
        self.semaphores.clear()
        self.untold.clear()
        self.openings.clear()

    def put_off(self, call: Callable[[], object]) -> None:
        """Make a call when the decision of this thread is done."""
        with suppress(RuntimeError):  # the interpreter ends, and all slots with it
            start_new_thread(call, ())

    def tell(self) -> None:
        """Tell those who have been handed a slot; whoever asks next goes on where another one was interrupted."""
        for ticket, (slots, fence) in tuple(self.untold.items()):
            told = ticket.hand(fence)
            self.untold.pop(ticket, None)
            if not told and ticket.gone:
                slots.leave(ticket, used=False)

    def sweep(self, now: float) -> None:
        """Drop some of what is idle; asked for every tenth of a second in which anybody asks for anything."""
        self.sweep_at = now + SWEEP_EVERY
        self.buckets.sweep(now, LOOKS)
        self.semaphores.sweep(now, LOOKS)


MEMORY = Memory()
"""This process's."""


class MemoryBucket:
    """One token bucket in memory."""

    def __init__(self, settings: BucketSettings, memory: Memory) -> None:
        self._name = settings.name
        self._key = key_of(settings)
        self._memory = memory
        self._clock = memory.clock
        self._terms = bucket_terms(settings, memory.clock() * MICROSECONDS - wall_clock())
        self._capacity, self._step = self._terms.capacity, self._terms.step
        self._found = memory.buckets.by_name.get(self._key, NOT_KEPT)

    @property
    def turns(self) -> Turns:
        """Those who sleep until their turn at the bucket of this name."""
        with self._memory.lock:
            return self._memory.turns.setdefault(self._key, Turns(heard_at=math.inf))

    def take_at_once(self, cost: float) -> bool:
        """Take tokens that are there; the short way for most. Where not, nothing has happened."""
        memory, clock = self._memory, self._clock
        with memory.lock:
            now = clock() * MICROSECONDS
            kept = self._found
            if kept.terms is not self._terms or now > memory.sweep_at:
                return False
            if not take_at_once(self._capacity, self._step, kept.state, now, cost):
                return False
            kept.used = now
            return True

    def ask(self, request: bucket.Request) -> bucket.Decision:
        """Decide on one request."""
        memory, terms = self._memory, self._terms
        with memory.lock:
            now = self._clock() * MICROSECONDS
            kept = memory.buckets.by_name.get(self._key)
            if kept is None or now > memory.sweep_at or kept.is_idle(now):
                kept = self._kept(now)
            kept.used = now
            kept.terms = terms
            self._found = kept
            return deciding.decide(terms, kept.state, now, request)

    def numbers_for(self, wanted: BucketSettings) -> tuple[float, ...]:
        """What overrides its settings with these."""
        return override_of(self._terms, bucket_terms(wanted, self._clock() * MICROSECONDS - wall_clock()))

    def change(self, change: Change) -> None:
        """Make a change for all who share the bucket."""
        with self._memory.lock:
            now = self._clock() * MICROSECONDS
            kept = self._kept(now)
            kept.used = now
            kept.terms = self._terms
            change_bucket(self._terms, kept.state, now, on_clock(change, now - wall_clock()))
            changed = kept.state.live.changed if kept.state.live else 0.0
        self.turns.hear(changed)

    def look(self) -> TokenBucketState:
        """What can be seen of it now."""
        with self._memory.lock:
            now = self._clock() * MICROSECONDS
            kept = self._memory.buckets.by_name.get(self._key)
            is_known = kept is not None and not kept.is_idle(now)
            state = bucket.copied(kept.state) if kept and is_known else bucket.BucketState(self._terms, now)
        return seen_bucket(self._name, self._terms, state, now, now - wall_clock())

    def _kept(self, now: float) -> KeptBucket:
        """The bucket's state; a new one where it was idle."""
        memory = self._memory
        if now > memory.sweep_at:
            memory.sweep(now)
        kept = memory.buckets.by_name.get(self._key)
        if kept is None:
            return memory.buckets.add(self._key, KeptBucket(self._terms, now), now)
        if kept.is_idle(now):
            kept.state = bucket.BucketState(self._terms, now)
        return kept


class AsyncMemoryBucket(MemoryBucket):
    """One token bucket in memory, asked by tasks. Nothing in it waits."""

    async def ask(self, request: bucket.Request) -> bucket.Decision:  # type: ignore[override]
        """Decide on one request."""
        return MemoryBucket.ask(self, request)

    async def change(self, change: Change) -> None:  # type: ignore[override]
        """Make a change for all who share the bucket."""
        MemoryBucket.change(self, change)

    async def look(self) -> TokenBucketState:  # type: ignore[override]
        """What can be seen of it now."""
        return MemoryBucket.look(self)


class MemorySemaphore:
    """One semaphore in memory. Its holders live as long as the process, so their leases have no end."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory) -> None:
        self.name = settings.name
        self._key = key_of(settings)
        self._memory = memory
        self._lock = memory.lock
        self._clock = memory.clock
        self._is_interrupted = memory.is_interrupted
        self._states = memory.semaphores.by_name
        self._terms = semaphore_terms(settings)._replace(lease=semaphore.FOREVER, presence=semaphore.FOREVER)
        self._capacity = self._terms.capacity
        self._found = self._states.get(self._key, NO_SLOTS)

    def enter_at_once(self) -> Ticket | None:
        """Take a slot, if one is free and nobody waits; the short way for most. Where not, nothing has happened."""
        clock = self._clock
        ticket = blank_ticket()
        ticket.name = self.name
        ticket.process = PROCESS.name
        try:
            with self._lock:
                ticket.since = since = clock()
                now = since * MICROSECONDS
                if now > self._memory.sweep_at:
                    return None
                ticket.fence = fence = enter_at_once(self._capacity, self._found, now, ticket)
                return ticket if fence else None
        except BaseException:
            self.leave(ticket, used=False)
            raise

    def leave_at_once(self, ticket: Ticket) -> bool:
        """Give a slot back that was used, if nobody waits; the short way for most. Where not, it is still held."""
        is_interrupted = self._is_interrupted
        if not ticket.fence or ticket.process != PROCESS.name or is_interrupted():
            return False
        ticket.gone = True
        held = (monotonic() - ticket.since) * MICROSECONDS
        with self._lock:
            return leave_at_once(self._found, ticket, held)

    def enter(self, ticket: Ticket, number: float, stay: semaphore.Stay, slack: float = 0.0) -> semaphore.Place:
        """Ask for a slot, or a place in the line; the ticket then knows where it stands."""
        return self._ask(semaphore.Request(semaphore.What.ENTER, ticket, number, stay, slack))

    def give_up(self, ticket: Ticket) -> semaphore.Place:
        """Stop waiting, unless a slot has come meanwhile."""
        return self._ask(semaphore.Request(semaphore.What.GIVE_UP, ticket))

    def leave(self, ticket: Ticket, *, used: bool = True) -> None:
        """Give the slot, or the place in the line, back."""
        if ticket.process != PROCESS.name or (used and self.leave_at_once(ticket)):
            return
        if self._is_interrupted():
            self._memory.put_off(partial(self.leave, ticket, used=used))
            return
        ticket.gone = True
        held = (monotonic() - ticket.since) * MICROSECONDS if used and ticket.fence else -1.0
        self._ask(semaphore.Request(semaphore.What.LEAVE, ticket, held))

    def change(self, change: Change) -> None:
        """Make a change for all who share the semaphore."""
        memory = self._memory
        with self._lock:
            now = self._clock() * MICROSECONDS
            state = self._state(now)
            handed = change_semaphore(self._terms, state, now, on_clock(change, now - wall_clock()))
            self._to_be_told(handed)
            self._plan_opening(semaphore.opens_in(state, now) / MICROSECONDS)
        if memory.untold:
            memory.tell()

    def look(self) -> SemaphoreState:
        """What can be seen of it now."""
        with self._lock:
            now = self._clock() * MICROSECONDS
            state = self._states.get(self._key) or semaphore.SemaphoreState()
            tickets = cast("list[Ticket]", list(islice(state.leases, MOST_LISTED)))
            holders = [holder(each.id, each.age, each.fence or None) for each in tickets]
            waiters = sum(end > now for end, _ in state.present.values())
            return seen_semaphore(
                self.name, self._terms, state, now, now - wall_clock(), holders, held=len(state.leases), waiters=waiters
            )

    def _plan_opening(self, seconds: float) -> None:
        """When it opens, those who wait are to be handed what is free, though nobody asks just then."""
        planned = self._memory.openings.pop(self._key, None)
        if planned is not None:
            planned.cancel()
        if seconds > 0:
            opening = Timer(seconds, self._open)
            opening.daemon = True
            opening.start()
            self._memory.openings[self._key] = opening

    def _open(self) -> None:
        """A request that changes nothing, but that time goes on."""
        self._memory.openings.pop(self._key, None)
        self._ask(semaphore.Request(semaphore.What.RENEW, None))

    def _ask(self, request: semaphore.Request) -> semaphore.Place:
        memory = self._memory
        with self._lock:
            now = self._clock() * MICROSECONDS
            place, handed = semaphore.decide(self._terms, self._state(now), now, request)
            if place.standing is semaphore.Standing.HOLDING:
                request.asker.take(int(place.number))
            self._to_be_told(handed)
        if memory.untold:
            memory.tell()
        return place

    def _state(self, now: float) -> semaphore.SemaphoreState:
        memory = self._memory
        if now > memory.sweep_at:
            memory.sweep(now)
        state = self._states.get(self._key)
        if state is None:
            state = memory.semaphores.add(self._key, semaphore.SemaphoreState(), now)
        self._found = state
        return state

    def _to_be_told(self, handed: list[semaphore.HandOver]) -> None:
        for ticket, fence in handed:
            self._memory.untold[ticket] = self, fence


class AsyncMemorySemaphore:
    """One semaphore in memory, asked by tasks. Nothing in it waits."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory) -> None:
        self._semaphore = MemorySemaphore(settings, memory)
        self.name = settings.name
        self.enter_at_once = self._semaphore.enter_at_once
        self.leave_at_once = self._semaphore.leave_at_once

    async def enter(self, ticket: Ticket, number: float, stay: semaphore.Stay, slack: float = 0.0) -> semaphore.Place:
        """Ask for a slot, or a place in the line; the ticket then knows where it stands."""
        return self._semaphore.enter(ticket, number, stay, slack)

    async def give_up(self, ticket: Ticket) -> semaphore.Place:
        """Stop waiting, unless a slot has come meanwhile."""
        return self._semaphore.give_up(ticket)

    async def leave(self, ticket: Ticket, *, used: bool = True) -> None:
        """Give the slot, or the place in the line, back."""
        self._semaphore.leave(ticket, used=used)

    async def change(self, change: Change) -> None:
        """Make a change for all who share the semaphore."""
        self._semaphore.change(change)

    async def look(self) -> SemaphoreState:
        """What can be seen of it now."""
        return self._semaphore.look()

    def abandon(self, ticket: Ticket) -> None:
        """The same, where nobody can await it."""
        self._semaphore.leave(ticket, used=False)
