"""The semaphore: who holds a slot, and who is next.

A slot is held by a lease, as in Gray and Cheriton (1989): it has an end, its holder renews it, and a dead
holder's runs out. Those who find no slot stand in line by their arrival number. A *listening* waiter is
handed a slot by the release that frees it; an *away* one (a job back in its queue) keeps its number and is
told when to come back. Both are present for a while only, and renew that; who has vanished is passed over.

A slot that is handed over has the end that its waiter's presence had: the same renewing goes on, so
nothing has to be confirmed.

Fencing numbers and arrival numbers are the time in microseconds, made to grow: they go on growing where the
state was forgotten, and an arrival number tells how long its owner has waited.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable
from enum import IntEnum
from typing import Any, NamedTuple

from steindamm.rules.semaphore_live import SemaphoreLive

FOREVER = math.inf
LEAST_GUESS = 100_000.0
"""Microseconds that a slot is taken to be held at least, while no release has told better."""
WEIGHT = 0.1
"""How much one holding time moves the running mean."""
OUTLIER = 4.0
"""A holding time counts as no more than so many means: a job that hung must not send all others away for long."""
LONGEST_WAIT = 366 * 86_400e6
"""Microseconds: whoever has to wait longer is told to come back then; a number that is older is none of ours."""


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
        number: The arrival number of one who has been here, else 0; for LEAVE, microseconds held; for RENEW by a
            holder, its fencing number below 0.
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
        standing: Where the asker stands now; of one who leaves, HOLDING says that it had a slot.
        number: The lease's fencing number, or the arrival number of one who waits.
        wait: Microseconds until a slot is to be expected; 0 for a holder.
        closed: Microseconds that nobody is given a slot.
    """

    standing: Standing
    number: float
    wait: float
    closed: float = 0.0


GONE = Place(Standing.OUT, 0.0, 0.0)


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
        capacity: How many slots there are, as the last one who asked for one had it.
        leases: The end of each lease, by its holder.
        present: Until when each waiter counts as present, and its arrival number.
        listening, away: (arrival number, waiter), in order.
        earliest, fading: No lease, and no presence, ends before this.
        seen: The time that the last request came with.
        fence, arrivals: The last numbers given out; nobody in line has a greater one.
        mean: The running mean of holding times in microseconds; 0 before the first.
        granted, deferred, refused: How many requests ended so.
        waited: Microseconds that those who were granted a slot had waited.
        live: What has been changed of the semaphore while it runs, if anything.
    """

    __slots__ = (
        "arrivals", "away", "capacity", "deferred", "earliest", "fading", "fence", "granted",
        "leases", "listening", "live", "mean", "present", "refused", "seen", "waited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.capacity = 0
        self.leases: dict[Hashable, float] = {}
        self.present: dict[Hashable, tuple[float, float]] = {}
        self.listening: list[tuple[float, Hashable]] = []
        self.away: list[tuple[float, Hashable]] = []
        self.earliest = self.fading = math.inf
        self.seen = -math.inf
        self.fence = self.arrivals = 0
        self.mean = 0.0
        self.granted = self.deferred = self.refused = 0
        self.waited = 0.0
        self.live: SemaphoreLive | None = None


HandOver = tuple[Any, int]
"""A waiter that has a slot now, and its fencing number."""


def slots(terms: SemaphoreTerms, state: SemaphoreState) -> int:
    """How many there are."""
    live = state.live
    return terms.capacity if live is None or not live.is_overridden else int(live.capacity)


def has_room(state: SemaphoreState, now: float) -> bool:
    """Whether a slot is to be given to whoever is next."""
    return len(state.leases) < state.capacity and (state.live is None or now >= state.live.reopens)


def opens_in(state: SemaphoreState, now: float) -> float:
    """Microseconds that it is closed for."""
    return 0.0 if state.live is None else max(0.0, state.live.reopens - now)


def tend(state: SemaphoreState, now: float) -> list[HandOver]:
    """End the leases that ran out and hand free slots to those who listen, first come first served."""
    if now < state.seen:
        _set_back(state, state.seen - now)
    state.seen = now
    if state.live is not None and state.live.is_over(now):
        state.live = None
    if now >= state.earliest:
        state.leases = {holder: end for holder, end in state.leases.items() if end > now}
        state.earliest = min(state.leases.values(), default=math.inf)
    handed: list[HandOver] = []
    while state.listening and has_room(state, now):
        number, waiter = state.listening.pop(0)
        end, _ = state.present.pop(waiter)
        if end > now:
            handed.append((waiter, _lease(state, waiter, now, end, number)))
    return handed


def enter(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, number: float, stay: Stay, slack: float
) -> tuple[Place, list[HandOver]]:
    """Ask for a slot; `number` is the arrival number of one who has been here, `slack` how late it may return."""
    state.capacity = slots(terms, state)
    handed = tend(state, now)
    return _step_in(terms, state, now, asker, number, stay, slack), handed


def leave(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, held: float
) -> tuple[Place, list[HandOver]]:
    """Give back a slot held for `held` microseconds, or the place in the line. A lost lease changes nothing.

    A negative `held` says that the slot was not used: it tells nothing about holding times.
    """
    state.capacity = state.capacity or terms.capacity
    handed = tend(state, now)
    if asker not in state.leases:
        _forget(state, asker)
        return GONE, handed
    _end(state, asker, held)
    return Place(Standing.HOLDING, 0.0, 0.0), handed + tend(state, now)


def give_up(terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable) -> tuple[Place, list[HandOver]]:
    """Stop waiting; one who has been handed a slot meanwhile keeps it."""
    state.capacity = state.capacity or terms.capacity
    handed = tend(state, now)
    if asker in state.leases:
        return _renewed(terms, state, now, asker), handed
    _forget(state, asker)
    return _refused(state, now), handed


def renew(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, number: float
) -> tuple[Place, list[HandOver]]:
    """Hold on to a lease, or to the place `number`; a waiter that was passed over steps back in."""
    state.capacity = state.capacity or terms.capacity
    handed = tend(state, now)
    if asker in state.leases:
        return _renewed(terms, state, now, asker), handed
    if number > 0:
        return _step_in(terms, state, now, asker, number, Stay.LISTENING, 0.0), handed
    return GONE, handed


def look(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, number: float
) -> tuple[float, list[HandOver]]:
    """Microseconds until a slot is to be expected by one with this arrival number; 0 where it has one, or one is free.

    Time goes on, and nothing else happens.
    """
    state.capacity = slots(terms, state)
    handed = tend(state, now)
    if asker in state.leases or has_room(state, now):
        return 0.0, handed
    _drop_vanished(state, now)
    return _expected(state, now, number if 0 < number <= max(state.arrivals, now) else math.inf), handed


def enter_at_once(capacity: int, state: SemaphoreState, now: float, asker: Hashable) -> int:
    """What `enter` does for a newcomer in the most frequent case: a slot is free, nobody waits, no lease has an end.

    Returns its fencing number; or 0, and has done nothing, in every other case.
    """
    if state.live or state.present or state.earliest != FOREVER or now < state.seen or len(state.leases) >= capacity:
        return 0
    state.capacity, state.seen = capacity, now
    state.leases[asker] = FOREVER
    state.granted += 1
    state.fence = fence = _next(state.fence, now)
    return fence


def leave_at_once(state: SemaphoreState, holder: Hashable, held: float) -> bool:
    """What `leave` does in the most frequent case: a slot is given back, nobody waits, no lease has an end.

    Returns whether this was the case; if not, it has done nothing.
    """
    if state.present or state.earliest != FOREVER or holder not in state.leases:
        return False
    _end(state, holder, held)
    return True


def is_idle(state: SemaphoreState, now: float) -> bool:
    """Whether nobody holds a slot or has a place, and nothing is changed."""
    _drop_vanished(state, now)
    is_live = state.live is not None and not state.live.is_over(now)
    return not (state.leases or state.present or is_live)


def _step_in(
    terms: SemaphoreTerms, state: SemaphoreState, now: float, asker: Hashable, number: float, stay: Stay, slack: float
) -> Place:
    """To a slot, or to the place in line; one who asks once more stands where it stood."""
    number = _forget(state, asker) or number
    if not max(0.0, now - LONGEST_WAIT) < number <= max(state.arrivals, now):
        number = 0.0
    _forget_away(state, number)
    if asker in state.leases:
        return _renewed(terms, state, now, asker)
    if has_room(state, now):
        return Place(Standing.HOLDING, _lease(state, asker, now, now + terms.lease, number), 0.0)
    if stay is Stay.NO:
        return _refused(state, now)
    if not number:
        number = _next(state.arrivals, now)
    state.arrivals = max(state.arrivals, int(number))
    _drop_vanished(state, now)
    wait = _expected(state, now, number)
    if stay is Stay.LISTENING:
        insort(state.listening, (number, asker))
        end = now + terms.presence
    else:
        insort(state.away, (number, asker))
        end = now + wait + slack
        state.deferred += 1
    state.present[asker] = end, number
    state.fading = min(state.fading, end)
    return Place(Standing.WAITING, number, wait, opens_in(state, now))


def _renewed(terms: SemaphoreTerms, state: SemaphoreState, now: float, holder: Hashable) -> Place:
    """A holder may have missed its hand-over and not know its number: it gets one of its own."""
    state.leases[holder] = now + terms.lease
    state.earliest = min(state.earliest, now + terms.lease)
    state.fence = _next(state.fence, now)
    return Place(Standing.HOLDING, state.fence, 0.0)


def _refused(state: SemaphoreState, now: float) -> Place:
    _drop_vanished(state, now)
    state.refused += 1
    return Place(Standing.OUT, 0.0, _expected(state, now, math.inf), opens_in(state, now))


def _lease(state: SemaphoreState, holder: Hashable, now: float, end: float, number: float = 0.0) -> int:
    state.leases[holder] = end
    state.earliest = min(state.earliest, end)
    if 0.0 < number < now:
        state.waited += now - number
    state.granted += 1
    state.fence = fence = _next(state.fence, now)
    return fence


def _next(last: int, now: float) -> int:
    """The time, as a number that is greater than the last one."""
    number = int(now)
    return number if number > last else last + 1


def _end(state: SemaphoreState, holder: Hashable, held: float) -> None:
    del state.leases[holder]
    if held < 0.0:
        return
    mean = state.mean
    if held > LEAST_GUESS and mean:
        held = min(held, max(OUTLIER * mean, LEAST_GUESS))
    state.mean = mean + (held - mean) * WEIGHT if mean else held


def _forget(state: SemaphoreState, waiter: Hashable) -> float:
    """Take a waiter out of the line; returns its number, or 0 where it has no place."""
    found = state.present.pop(waiter, None)
    if found is None:
        return 0.0
    entry = (found[1], waiter)
    for line in (state.listening, state.away):
        at = bisect_left(line, entry)
        if line[at : at + 1] == [entry]:
            del line[at]
    return found[1]


def _forget_away(state: SemaphoreState, number: float) -> None:
    """One who was away is back, as another asker."""
    at = bisect_left(state.away, (number,))
    while at < len(state.away) and state.away[at][0] == number:
        _forget(state, state.away[at][1])


def _drop_vanished(state: SemaphoreState, now: float) -> None:
    if now < state.fading:
        return
    for waiter in [waiter for waiter, (end, _) in state.present.items() if end <= now]:
        _forget(state, waiter)
    state.fading = min((end for end, _ in state.present.values()), default=math.inf)


def _guessed(state: SemaphoreState, now: float) -> float:
    """How long slots are held, where no release has told: whoever has held one for so long does for as long again."""
    return max(now - state.fence, LEAST_GUESS) if state.fence else LEAST_GUESS


def _expected(state: SemaphoreState, now: float, number: float) -> float:
    mean = state.mean or _guessed(state, now)
    ahead = bisect_left(state.listening, (number,)) + bisect_left(state.away, (number,))
    closed = opens_in(state, now)
    if closed:
        ahead = max(-1, ahead - max(0, state.capacity - len(state.leases)))
    return min(math.ceil(closed + (ahead + 1) * mean / state.capacity), LONGEST_WAIT)


def _set_back(state: SemaphoreState, shift: float) -> None:
    """The clock went back: what had so long to live still has."""
    state.earliest -= shift
    state.fading -= shift
    if state.live is not None:
        state.live.reopens -= shift
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
