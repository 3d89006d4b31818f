"""Several limits at once: all of them grant, or none does.

One decision at one moment looks at all. Where each has what is asked of it, each gives it. Where not, one alone
is touched, the one with the longest wait: a bucket books a turn, a semaphore gives a place in its line. The
others stay as they were, so that what they have goes to those who wait for nothing else. Whoever comes back at
that turn brings it along, and it is decided anew: what was booked is taken from the pace, the rest as at first.

Nobody holds a slot while waiting for something else: one that is handed over to somebody who is short of
another thing goes back in the same decision. With one exception, or else who needs two semaphores that others
keep full would never find both free: who has stood in the line of the larger one before keeps its slot of the
smaller one while it stands there again, which is at the head. Slots are kept in that order only (Havender
1968), so nobody waits in a circle, in whatever order the limits were named.

Tokens may be taken a little ahead of the start (`Request.accept`). A bucket then gives up as well what would
flow over until the start: it is left as if the tokens were taken at that moment, and no window holds more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from steindamm.rules import bucket, deciding, semaphore
from steindamm.rules.bucket import BucketState, BucketTerms
from steindamm.rules.semaphore import HandOver, Place, SemaphoreState, SemaphoreTerms, Stay


class Verdict(IntEnum):
    """What was decided about a request; the script replies with the same numbers."""

    REFUSED = 0
    """Nothing taken; ask again after the wait."""
    GRANTED = 1
    """All of it taken: start after the wait."""
    WAITING = 2
    """A turn booked, or a place in line, at one of the limits: come back after the wait, with what it gave."""
    TOO_MUCH = 3
    """Nothing taken: a cost is above a capacity, which was lowered while the bucket runs."""


REFUSALS = frozenset([Verdict.REFUSED, Verdict.TOO_MUCH])


class What(IntEnum):
    """What a request asks for; the script is told the same numbers."""

    TAKE = 0
    LOOK = 1
    """What TAKE would be answered; nothing but time changes."""
    GIVE_BACK = 2
    """What was granted: tokens at the turn that is told, and slots."""
    GIVE_BOOKINGS_BACK = 3
    """What was booked, and places in line."""


GIFTS = frozenset([What.GIVE_BACK, What.GIVE_BOOKINGS_BACK])


class Ask(NamedTuple):
    """What one of the limits is asked for.

    Parameters:
        cost: Tokens; 0 at a semaphore, which gives one slot.
        turn: The turn that a bucket has booked, or the arrival number at a semaphore; 0 for none. When it is given
            back: the turn, and for how many microseconds a slot was held, or below 0 where it was not used.
        asker: Who asks a semaphore.
    """

    cost: float = 0.0
    turn: float = 0.0
    asker: Any = None


class Request(NamedTuple):
    """One request to several limits.

    Parameters:
        asks: What is asked of each.
        accept: The longest wait for the start, in microseconds, for which tokens may be taken ahead.
        horizon: How far away, in microseconds, a turn may be booked.
        stay: What to do where a semaphore has no slot.
        slack: Microseconds that one who goes away may be late.
        what: Whether it takes, looks, or gives back.
    """

    asks: tuple[Ask, ...]
    accept: float = 0.0
    horizon: float = 0.0
    stay: Stay = Stay.NO
    slack: float = 0.0
    what: What = What.TAKE


class Decision(NamedTuple):
    """The answer to one request.

    Parameters:
        verdict: What was decided.
        which: The limit with the longest wait: the one that refused, or that is waited for.
        wait: That wait in microseconds; infinite where no wait would help.
        given: What each gave: a bucket a turn, a semaphore a fencing number or a place in line; 0 for nothing.
        changed: Of a bucket when its clock was last set, 0 where it is the backend's; of a semaphore for how many
            microseconds it is closed.
    """

    verdict: Verdict
    which: int
    wait: float
    given: tuple[float, ...]
    changed: tuple[float, ...]


class Look(NamedTuple):
    """What one limit would answer now.

    Parameters:
        verdict: What it would decide.
        wait: Microseconds until it has what is asked; infinite where it never will.
        turn: That moment on the limit's clock.
    """

    verdict: Verdict
    wait: float
    turn: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """By which the limits are compared: one that refuses decides, else one that is short, else the longest wait."""
        return (self.verdict is not Verdict.GRANTED) + (self.verdict in REFUSALS), self.wait


class BucketPart:
    """A token bucket, as one of several limits, at one moment.

    Parameters:
        terms: The bucket's terms.
        state: Its state, which is copied.
        now: The moment.

    Attributes:
        state: The copy, to be kept if it was touched.
        touched: Whether anything but time has changed it.
    """

    def __init__(self, terms: BucketTerms, state: BucketState, now: float) -> None:
        self.state = bucket.copied(state)
        self.touched = False
        self._own_terms = terms
        self._terms, self._clock = bucket.at(terms, self.state, now)
        self._now = now

    slots = 0

    def look(self, ask: Ask, request: Request) -> Look:
        """How long it takes until the tokens are there; for one that has booked, until it may start."""
        terms, state, time = self._terms, self.state, self._clock.time
        bucket.refill(terms, state, time)
        if ask.turn:
            booked = self._turn(ask)
            if self._wait(booked) > request.accept:
                return Look(Verdict.WAITING, self._wait(booked), booked)
            start = max(booked, bucket.turn_of(terms, state, state.pace - min(ask.cost, terms.capacity), time))
            if self._wait(start) <= request.accept and start < math.inf:
                return Look(Verdict.GRANTED, self._wait(start), start)
        turn = bucket.turn_of(terms, state, min(state.line, state.pace) - ask.cost, time)
        wait = self._wait(turn)
        if ask.cost > terms.capacity and not ask.turn:
            return Look(Verdict.TOO_MUCH, math.inf)
        if wait <= request.accept and wait < math.inf and not ask.turn and (wait == 0 or not bucket.is_booked(state)):
            return Look(Verdict.GRANTED, wait, turn)
        is_too_far = wait > max(request.accept, request.horizon) or wait == math.inf
        return Look(Verdict.REFUSED if is_too_far else Verdict.WAITING, wait, turn)

    def take(self, ask: Ask, look: Look, wait: float) -> float:
        """Take the tokens for a start after that wait."""
        self.touched = True
        state = self.state
        if wait > 0:
            start = self._clock.time + max(0.0, self._clock.own(wait))
            state.pace = bucket.pace_for(self._terms, state, start)
        state.pace -= ask.cost
        if not ask.turn:
            state.line -= ask.cost
        state.granted += 1
        state.waited += look.wait
        bucket.end_live(state, self._clock, self._now)
        return look.turn

    def stand(self, ask: Ask, look: Look, request: Request) -> tuple[Verdict, float, float]:
        """Book a turn, or keep the one that is still ahead; what becomes of it, the wait and the turn."""
        if ask.turn and self._wait(self._turn(ask)) > request.accept:
            return look
        self.touched = True
        state = self.state
        if look.verdict in REFUSALS:
            state.refused += 1
            return look.verdict, look.wait, 0.0
        state.line -= ask.cost
        state.deferred += 1
        state.waited += look.wait
        return look

    @property
    def changed(self) -> float:
        """When its clock was last set."""
        return self.state.live.changed if self.state.live else 0.0

    def keep(self, ask: Ask) -> float:
        """Nothing of a bucket is kept while something else is waited for, but the turn that was booked."""
        return 0.0

    let_go = keep

    def give_back(self, ask: Ask, *, booked: bool) -> None:
        """Return tokens that are not used, if nothing was given out after them."""
        if ask.turn:
            self.touched = True
            what = bucket.What.GIVE_BOOKING_BACK if booked else bucket.What.GIVE_BACK
            deciding.decide(self._own_terms, self.state, self._now, bucket.Request(what, ask.cost, turn=ask.turn))

    def _turn(self, ask: Ask) -> float:
        """The turn that was booked; one later than the end of the line can't have been given."""
        time = self._clock.time
        return max(time, min(ask.turn, bucket.turn_of(self._terms, self.state, self.state.line, time)))

    def _wait(self, turn: float) -> float:
        return self._clock.real(turn - self._clock.time)


class SemaphorePart:
    """A semaphore, as one of several limits, at one moment.

    Parameters:
        terms: The semaphore's terms.
        state: Its state, in which time goes on whatever is decided.
        now: The moment.

    Attributes:
        touched: Whether anything but time has changed it.
        handed: The waiters that were handed a slot meanwhile.
    """

    def __init__(self, terms: SemaphoreTerms, state: SemaphoreState, now: float) -> None:
        self.state = state
        self.touched = False
        self.handed: list[HandOver] = []
        self._terms = terms
        self._now = now

    @property
    def slots(self) -> int:
        """How many slots it has."""
        return self.state.capacity

    @property
    def changed(self) -> float:
        """For how long it is closed."""
        return semaphore.opens_in(self.state, self._now)

    def look(self, ask: Ask, request: Request) -> Look:
        """How long until a slot is to be expected."""
        wait, handed = semaphore.look(self._terms, self.state, self._now, ask.asker, ask.turn)
        self.handed += handed
        if wait == 0:
            return Look(Verdict.GRANTED, wait)
        is_in_vain = request.stay is Stay.NO or self.changed > request.horizon
        return Look(Verdict.REFUSED if is_in_vain else Verdict.WAITING, wait)

    def take(self, ask: Ask, look: Look, wait: float) -> float:
        """Take the slot that is free, or that the asker has been handed."""
        return self._enter(ask, Stay.NO, 0.0).number

    def stand(self, ask: Ask, look: Look, request: Request) -> tuple[Verdict, float, float]:
        """Stand in line; what becomes of it, the wait and the arrival number."""
        stay = Stay.NO if look.verdict is Verdict.REFUSED else request.stay
        place = self._enter(ask, stay, request.slack)
        return look.verdict, place.wait, place.number

    def keep(self, ask: Ask) -> float:
        """Keep the slot that the asker has been handed, if it has one; its fencing number."""
        place, _ = semaphore.renew(self._terms, self.state, self._now, ask.asker, 0.0)
        return place.number

    def let_go(self, ask: Ask) -> float:
        """Give back what the asker has been handed: it can't start yet."""
        _, handed = semaphore.leave(self._terms, self.state, self._now, ask.asker, -1.0)
        self.handed += handed
        return 0.0

    def give_back(self, ask: Ask, *, booked: bool) -> None:
        """Return a slot, or a place in line."""
        _, handed = semaphore.leave(self._terms, self.state, self._now, ask.asker, ask.turn)
        self.handed += handed

    def _enter(self, ask: Ask, stay: Stay, slack: float) -> Place:
        self.touched = True
        place, _ = semaphore.enter(self._terms, self.state, self._now, ask.asker, ask.turn, stay, slack)
        return place


Part: TypeAlias = BucketPart | SemaphorePart


def decide(parts: Sequence[Part], request: Request) -> Decision:
    """Decide on one request to limits that were brought to one moment; a gift is GRANTED, whatever becomes of it."""
    asks = request.asks
    if request.what in GIFTS:
        return _give_back(parts, request)
    looks = [part.look(ask, request) for part, ask in zip(parts, asks, strict=True)]
    which = max(range(len(looks)), key=lambda index: looks[index].rank)
    verdict, wait, _ = looks[which]
    given = [0.0] * len(parts)
    if request.what is What.LOOK:
        pass
    elif verdict is Verdict.GRANTED:
        given = [part.take(ask, look, wait) for part, ask, look in zip(parts, asks, looks, strict=True)]
    else:
        given = _left(parts, which, request)
        verdict, wait, given[which] = parts[which].stand(asks[which], looks[which], request)
    return Decision(verdict, which, wait, tuple(given), tuple(part.changed for part in parts))


def _give_back(parts: Sequence[Part], request: Request) -> Decision:
    for part, ask in zip(parts, request.asks, strict=True):
        part.give_back(ask, booked=request.what is What.GIVE_BOOKINGS_BACK)
    return Decision(Verdict.GRANTED, 0, 0.0, (0.0,) * len(parts), tuple(part.changed for part in parts))


def _left(parts: Sequence[Part], which: int, request: Request) -> list[float]:
    """What is left to the asker of what it had been handed, now that it has to wait."""
    slots = [part.slots for part in parts]
    return [
        part.keep(ask) if may_keep(request, slots, index, which) else part.let_go(ask)
        for index, (part, ask) in enumerate(zip(parts, request.asks, strict=True))
    ]


def undoing(request: Request, decision: Decision) -> Request:
    """What gives back what was decided, where the asker has gone."""
    granted = decision.verdict is Verdict.GRANTED
    asks = []
    for ask, given in zip(request.asks, decision.given, strict=True):
        is_token = ask.asker is None
        is_new = granted or not ask.turn
        asks.append(ask._replace(turn=given if is_new else 0.0) if is_token else ask._replace(turn=-1.0))
    return Request(tuple(asks), what=What.GIVE_BACK if granted else What.GIVE_BOOKINGS_BACK)


def may_keep(request: Request, slots: Sequence[int], index: int, which: int) -> bool:
    """Whether a slot that the asker has of one semaphore is kept while it stands in the line of another.

    Parameters:
        request: What it asks.
        slots: How many slots each of the limits has; a bucket has none.
        index: The semaphore whose slot it has.
        which: The limit that it waits for.
    """
    has_stood_there = request.asks[which].turn > 0
    if request.stay is not Stay.LISTENING or not has_stood_there or not slots[index]:
        return False
    return (slots[index], index) < (slots[which], which)
