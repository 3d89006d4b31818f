"""The semaphore: who holds a slot, and who is next.

A slot is held by a lease, as in Gray and Cheriton (1989): it has an end, its holder renews it, and a dead
holder's runs out. Those who find no slot stand in line by their arrival number. A *listening* waiter is
handed a slot by the release that frees it; an *away* one (a job back in its queue) keeps its number and is
told when to come back. Both are present for a while only, and renew that; who has vanished is passed over.

A slot that is handed over has the end that its waiter's presence had: the same renewing goes on, so
nothing has to be confirmed.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable
from enum import IntEnum
from typing import Any, NamedTuple

FOREVER = math.inf
FIRST_GUESS = 1_000_000.0
"""Microseconds that a slot is taken to be held while no release has told better."""
WEIGHT = 0.1
"""How much one holding time moves the running mean."""


class Standing(IntEnum):
    """Where an asker stands after its request; the scripts reply with the same numbers."""

    OUT = 0
    """Neither slot nor place: refused, given up, or lost."""
    HOLDING = 1
    """It has a slot."""
    WAITING = 2
    """It has a place in the line."""


class Stay(IntEnum):
    """What an asker does when there is no slot."""

    NO = 0
    LISTENING = 1
    AWAY = 2


class What(IntEnum):
    """What a request asks for; the script is told the same numbers."""

    ENTER = 0
    LEAVE = 1
    GIVE_UP = 2
    RENEW = 3


class Request(NamedTuple):
    """One request to a semaphore.

    Parameters:
        what: Whether it asks for a slot, gives it back, stops waiting or renews.
        asker: Who asks.
        number: The arrival number of one who has been here, else 0; for LEAVE, microseconds held.
        stay: What to do where there is no slot.
        slack: Microseconds that one who goes away may be late.
    """

    what: What
    asker: Any
    number: float = 0.0
    stay: Stay = Stay.NO
    slack: float = 0.0


class Place(NamedTuple):
    """The answer to one request.

    Parameters:
        standing: Where the asker stands now.
        number: The lease's fencing number, or the arrival number of one who waits.
        wait: Microseconds until a slot is to be expected; 0 for a holder.
    """

    standing: Standing
    number: float
    wait: float


class SemaphoreTerms(NamedTuple):
    """A semaphore's settings in the rule's units.

    Parameters:
        capacity: How many slots there are.
        lease: Microseconds that a lease lasts unless it is renewed.
        presence: Microseconds that a waiter counts as present unless it renews that.
    """

    capacity: int
    lease: float
    presence: float


class SemaphoreState:
    """What is remembered of a semaphore between requests.

    Parameters:
        leases: The end of each lease, by its holder.
        present: Until when each waiter counts as present, and its arrival number.
        listening, away: (arrival number, waiter), in order.
        earliest, fading: No lease, and no presence, ends before this.
        seen: The latest time that a request came with.
        fence, arrivals: The last numbers given out.
        mean: The running mean of holding times in microseconds; 0 before the first.
        granted, deferred, refused: How many requests ended so.
    """

    __slots__ = (
        "arrivals", "away", "deferred", "earliest", "fading", "fence", "granted",
        "leases", "listening", "mean", "present", "refused", "seen",
    )  # fmt: skip

    def __init__(self) -> None:
        self.leases: dict[Hashable, float] = {}
        self.present: dict[Hashable, tuple[float, float]] = {}
        self.listening: list[tuple[float, Hashable]] = []
        self.away: list[tuple[float, Hashable]] = []
        self.earliest = self.fading = math.inf
        self.seen = -math.inf
        self.fence = self.arrivals = 0.0
        self.mean = 0.0
        self.granted = self.deferred = self.refused = 0


HandOver = tuple[Any, float]
"""A waiter that has a slot now, and its fencing number."""


def tend(terms: SemaphoreTerms, state: SemaphoreState, now: float) -> list[HandOver]:
    """End the leases that ran out and hand free slots to those who listen, first come first served."""
    if now < state.seen:
        _set_back(state, state.seen - now)
    state.seen = now
    if now >= state.earliest:
        state.leases = {holder: end for holder, end in state.leases.items() if end > now}
        state.earliest = min(state.leases.values(), default=math.inf)
    handed: list[HandOver] = []
    while state.listening and len(state.leases) < terms.capacity:
        _, waiter = state.listening.pop(0)
        end, _ = state.present.pop(waiter)
        if end > now:
            handed.append((waiter, _lease(state, waiter, now, end)))
    return handed


def enter(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, number: float, stay: Stay, slack: float
) -> tuple[Place, list[HandOver]]:
    """Ask for a slot; `number` is the arrival number of one who has been here, `slack` how late it may return."""
    handed = tend(terms, state, now)
    _forget(state, asker)
    if asker in state.leases:
        return _renewed(terms, state, now, asker), handed
    if len(state.leases) < terms.capacity:
        return Place(Standing.HOLDING, _lease(state, asker, now, now + terms.lease), 0.0), handed
    _drop_vanished(state, now)
    if stay is Stay.NO:
        state.refused += 1
        return Place(Standing.OUT, 0.0, _expected(terms, state, math.inf)), handed
    if number <= 0 or number > state.arrivals:
        state.arrivals += 1
        number = state.arrivals
    wait = _expected(terms, state, number)
    if stay is Stay.LISTENING:
        insort(state.listening, (number, asker))
        end = now + terms.presence
    else:
        insort(state.away, (number, asker))
        end = now + wait + slack
        state.deferred += 1
    state.present[asker] = end, number
    state.fading = min(state.fading, end)
    return Place(Standing.WAITING, number, wait), handed


def leave(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, held: float
) -> tuple[Place, list[HandOver]]:
    """Give back a slot held for `held` microseconds, or the place in the line. A lost lease changes nothing.

    A negative `held` says that the slot was not used: it tells nothing about holding times.
    """
    handed = tend(terms, state, now)
    _forget(state, asker)
    if state.leases.pop(asker, None) is None:
        return Place(Standing.OUT, 0.0, 0.0), handed
    if held >= 0:
        state.mean = state.mean + (held - state.mean) * WEIGHT if state.mean else held
    return Place(Standing.HOLDING, 0.0, 0.0), handed + tend(terms, state, now)


def give_up(terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable) -> tuple[Place, list[HandOver]]:
    """Stop waiting; one who has been handed a slot meanwhile keeps it."""
    handed = tend(terms, state, now)
    if asker in state.leases:
        return _renewed(terms, state, now, asker), handed
    _forget(state, asker)
    state.refused += 1
    return Place(Standing.OUT, 0.0, _expected(terms, state, math.inf)), handed


def renew(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, number: float
) -> tuple[Place, list[HandOver]]:
    """Hold on to a lease, or to the place `number`; a waiter that was passed over steps back in."""
    handed = tend(terms, state, now)
    if asker in state.leases:
        return _renewed(terms, state, now, asker), handed
    if number > 0:
        place, more = enter(terms, state, now, asker, number, Stay.LISTENING, 0.0)
        return place, handed + more
    return Place(Standing.OUT, 0.0, 0.0), handed


def _renewed(terms: SemaphoreTerms, state: SemaphoreState, now: float, holder: Hashable) -> Place:
    """A holder may have missed its hand-over and not know its number: it gets one of its own."""
    state.leases[holder] = now + terms.lease
    state.fence = max(state.fence + 1, math.floor(now))
    return Place(Standing.HOLDING, state.fence, 0.0)


def _lease(state: SemaphoreState, holder: Hashable, now: float, end: float) -> float:
    state.leases[holder] = end
    state.earliest = min(state.earliest, end)
    state.granted += 1
    state.fence = max(state.fence + 1, math.floor(now))
    return state.fence


def _forget(state: SemaphoreState, waiter: Hashable) -> None:
    found = state.present.pop(waiter, None)
    if found is None:
        return
    entry = (found[1], waiter)
    for line in (state.listening, state.away):
        at = bisect_left(line, entry)
        if line[at : at + 1] == [entry]:
            del line[at]


def _drop_vanished(state: SemaphoreState, now: float) -> None:
    if now < state.fading:
        return
    for waiter in [waiter for waiter, (end, _) in state.present.items() if end <= now]:
        _forget(state, waiter)
    state.fading = min((end for end, _ in state.present.values()), default=math.inf)


def _expected(terms: SemaphoreTerms, state: SemaphoreState, number: float) -> float:
    ahead = bisect_left(state.listening, (number,)) + bisect_left(state.away, (number,))
    return math.ceil((ahead + 1) * (state.mean or FIRST_GUESS) / terms.capacity)


def _set_back(state: SemaphoreState, shift: float) -> None:
    """The clock went back: what had so long to live still has."""
    state.earliest -= shift
    state.fading -= shift
    state.leases = {holder: end - shift for holder, end in state.leases.items()}
    state.present = {waiter: (end - shift, number) for waiter, (end, number) in state.present.items()}


def decide(terms: SemaphoreTerms, state: SemaphoreState, now: float, request: Request) -> tuple[Place, list[HandOver]]:
    """Decide on one request of any kind."""
    what, asker, number, stay, slack = request
    if what is What.ENTER:
        return enter(terms, state, now, asker, number, stay, slack)
    if what is What.LEAVE:
        return leave(terms, state, now, asker, number)
    if what is What.GIVE_UP:
        return give_up(terms, state, now, asker)
    return renew(terms, state, now, asker, number)
