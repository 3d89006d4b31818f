"""The token bucket: who may start, and when.

A bucket as in Turner (1986) and the `rate` package of Go: a request that must wait takes its tokens at
once, below zero if need be, and is told when they will be there. So one call decides, the caller sleeps
once, and no two callers share a turn.

Two levels are kept. The *line* hands out turns: it counts everything granted and booked. The *pace* guards
the limit: it counts what starts. A caller that waits takes from both; a booking takes from the line; one
that comes back for its booking takes from the pace.

Refills come in whole steps on a grid that starts when the bucket stops being full (or that the caller
anchors to a calendar); what is left of a step stays.

Nothing here knows of closing, slowing, or another rate: what is changed of a bucket while it runs changes its
clock, see `steindamm.rules.live`, and `steindamm.rules.deciding` asks in bucket time.
"""

from __future__ import annotations

import math
from copy import copy
from enum import IntEnum
from typing import NamedTuple

from steindamm.rules.live import YEAR, Clock, Live

ENDLESS = math.inf
NEVER_BACK = -1.0
DUST = 1e-9
"""Tokens that rounding may leave missing; too few to wait another step for."""

ROUNDING = 1.0
"""Microseconds by which a turn that was told in whole ones may be off."""

YOUNG = 100
"""Requests that a bucket has decided on, below which its backend may just have lost an older one.

So many are decided on before a process with sleepers has asked and told."""


class Verdict(IntEnum):
    """What was decided about a request; the scripts reply with the same numbers."""

    REFUSED = 0
    """Nothing taken; ask again after the wait."""
    GRANTED = 1
    """Tokens taken: start after the wait."""
    BOOKED = 2
    """A place in the line: come back after the wait, with the turn."""
    EARLY = 3
    """The turn stands and is not there yet: come back after the wait."""
    TOO_MUCH = 4
    """Nothing taken: the cost is above the capacity, which was lowered while the bucket runs."""


class What(IntEnum):
    """What a request asks for; the script is told the same numbers."""

    TAKE = 0
    COME_BACK = 1
    GIVE_BACK = 2
    GIVE_BOOKING_BACK = 3
    SETTLE = 4
    LOOK = 5


class Request(NamedTuple):
    """One request to a bucket.

    Parameters:
        what: Whether it takes, comes back for a booking, gives back, settles a cost, or looks how far a turn is.
        cost: Tokens; to settle, those that were used beyond the ones taken, or below 0 those that were not.
        accept: The longest wait, in microseconds, that the caller accepts; to look, when the bucket's clock had last
            been set as the turn was told, or `ENDLESS` where the turn stands whatever has happened since.
        horizon: How far away, in microseconds, a turn may be booked; 0 for a caller that does not book, `NEVER_BACK`
            for one that would not come back for it.
        turn: The turn that was booked, is given back, or looked at, in microseconds on the bucket's clock; for one that
            takes, the last turn that it knows to be outstanding, or 0.
    """

    what: What
    cost: float
    accept: float = ENDLESS
    horizon: float = 0.0
    turn: float = 0.0


class Decision(NamedTuple):
    """The answer to one request.

    Parameters:
        verdict: What was decided.
        wait: Microseconds until then; infinite where no wait would help.
        turn: The moment itself, in microseconds on the bucket's clock.
        changed: When the bucket's clock was last set; 0 where it is the backend's.
    """

    verdict: Verdict
    wait: float
    turn: float
    changed: float = 0.0


class BucketTerms(NamedTuple):
    """A bucket's settings in the rule's units.

    Parameters:
        capacity: The most tokens it holds.
        amount: Tokens that arrive each step.
        step: Microseconds between refills; 0 for a quota that never refills.
        initial: Tokens in a bucket nobody has used.
        anchor: A moment of the refill grid, in microseconds, or a negative number for none.
        keep: Microseconds that the state is kept at least after its last use.
    """

    capacity: float
    amount: float
    step: float
    initial: float
    anchor: float = -1.0
    keep: float = 0.0


class BucketState:
    """What is remembered of a bucket between requests.

    Parameters:
        line: Tokens left after all that was granted and booked.
        pace: Tokens left after all that was let start.
        grid: The last refill step, in microseconds.
        granted, deferred, refused: How many requests ended so.
        waited: Microseconds of waiting handed out.
        live: What has been changed of the bucket while it runs, if anything.
    """

    __slots__ = ("deferred", "granted", "grid", "line", "live", "pace", "refused", "waited")

    def __init__(self, terms: BucketTerms, now: float) -> None:
        self.line = self.pace = terms.initial
        self.grid = grid_start(terms, now)
        self.granted = self.deferred = self.refused = 0
        self.waited = 0.0
        self.live: Live | None = None


def copied(state: BucketState) -> BucketState:
    """The same state, to be changed without changing this one."""
    own = copy(state)
    own.live = copy(state.live)
    return own


def grid_start(terms: BucketTerms, now: float) -> float:
    """The last refill step of a bucket that is full now."""
    if terms.anchor < 0 or terms.step == 0:
        return now
    return terms.anchor + math.floor((now - terms.anchor) / terms.step) * terms.step


def refill(terms: BucketTerms, state: BucketState, now: float) -> None:
    """Add the steps that have passed, and keep what the bucket holds.

    A clock that was set back costs at most one step: the grid starts again now, for no step has passed since
    the last one. A calendar's grid stays where it is, lest a window opens twice, unless a whole step was set back.
    """
    capacity, step = terms.capacity, terms.step
    elapsed = now - state.grid
    if 0 <= elapsed < step and state.line < capacity and state.pace < capacity:
        return
    if elapsed >= step > 0:
        steps = math.floor(elapsed / step)
        state.line += steps * terms.amount
        state.pace += steps * terms.amount
        state.grid += steps * step
    elif elapsed < 0 and (terms.anchor < 0 or elapsed <= -step):
        state.grid = grid_start(terms, now)
    if state.line >= capacity and state.pace >= capacity:
        state.grid = grid_start(terms, now)
    state.line = min(capacity, state.line)
    state.pace = min(capacity, state.pace)


def turn_of(terms: BucketTerms, state: BucketState, level: float, now: float) -> float:
    """The moment at which a level below zero is paid for."""
    if level >= -DUST:
        return now
    if terms.step == 0:
        return ENDLESS
    return state.grid + math.ceil((-level - DUST) / terms.amount) * terms.step


def pace_for(terms: BucketTerms, state: BucketState, start: float) -> float:
    """What the pace holds for a later start: nothing that would flow over until then."""
    steps = math.floor((start - state.grid) / terms.step + DUST) if terms.step > 0 else 0
    return min(state.pace, terms.capacity - steps * terms.amount)


def is_booked(state: BucketState) -> bool:
    """Whether turns may have been booked by those who have not come back."""
    return state.pace - state.line > DUST


def take(
    terms: BucketTerms, state: BucketState, now: float, cost: float, accept: float, horizon: float = 0.0
) -> Decision:
    """Take tokens for a caller that waits up to `accept`, or book a turn up to `horizon` away.

    The pace is taken at the start. Where bookings are outstanding, a caller that has to wait for its start books as
    well: what it took in advance from the pace would be missing to those whose turns come first, and be there twice
    when it starts.
    """
    refill(terms, state, now)
    turn = turn_of(terms, state, min(state.line, state.pace) - cost, now)
    wait = turn - now
    if wait <= accept and wait < ENDLESS and (wait == 0 or horizon < 0 or not is_booked(state)):
        state.line -= cost
        state.pace -= cost
        state.granted += 1
        state.waited += wait
        return Decision(Verdict.GRANTED, wait, turn)
    if wait <= max(accept, horizon) and wait < ENDLESS:
        state.line -= cost
        state.deferred += 1
        state.waited += wait
        return Decision(Verdict.BOOKED, wait, turn)
    state.refused += 1
    return Decision(Verdict.REFUSED, wait, turn)


def take_at_once(capacity: float, step: float, state: BucketState, now: float, cost: float) -> bool:
    """What `take` does where the tokens are there, no refill is due and nothing is changed; else nothing."""
    line, pace = state.line, state.pace
    if not (0.0 < cost <= line < capacity and cost <= pace < capacity and 0.0 <= now - state.grid < step):
        return False
    if state.live is not None:
        return False
    state.line = line - cost
    state.pace = pace - cost
    state.granted += 1
    return True


def come_back(
    terms: BucketTerms, state: BucketState, now: float, cost: float, accept: float, horizon: float, turn: float
) -> Decision:
    """Start what was booked for `turn`, wait for it up to `accept`, or book again.

    A turn later than the end of the line can't have been given (the clock was set back, the state was lost,
    or somebody made it up): it counts as the end of the line. A cost that has come to be above the capacity
    since it was booked starts when the pace is full.
    """
    refill(terms, state, now)
    turn = max(now, min(turn, turn_of(terms, state, state.line, now)))
    if turn - now > accept:
        return Decision(Verdict.EARLY, turn - now, turn)
    start = max(turn, turn_of(terms, state, state.pace - min(cost, terms.capacity), now))
    if start - now > accept or start == ENDLESS:
        return take(terms, state, now, cost, -1.0, horizon)
    if start > now:
        state.pace = pace_for(terms, state, start)
    state.pace -= cost
    state.granted += 1
    state.waited += start - now
    return Decision(Verdict.GRANTED, start - now, start)


def give_back(
    terms: BucketTerms, state: BucketState, now: float, cost: float, turn: float, *, booked: bool = False
) -> bool:
    """Return the tokens of a turn that is not used, if nothing was given out after it.

    Tokens of a turn that has passed go back as long as no refill came since: it may have been lost to them.
    """
    refill(terms, state, now)
    end = turn_of(terms, state, state.line, now)
    if turn > now and abs(turn - end) > ROUNDING:
        return False
    if turn <= now and (turn < state.grid or end > now):
        return False
    state.line = min(terms.capacity, state.line + cost)
    if not booked:
        state.pace = min(terms.capacity, state.pace + cost)
    return True


def settle(terms: BucketTerms, state: BucketState, now: float, cost: float) -> None:
    """Take what was used beyond the tokens taken, into debt if need be; below 0, give back what was not used."""
    refill(terms, state, now)
    state.line = min(terms.capacity, state.line - cost)
    state.pace = min(terms.capacity, state.pace - cost)


def look(terms: BucketTerms, state: BucketState, now: float, turn: float) -> Decision:
    """How far away a turn is that was granted."""
    refill(terms, state, now)
    turn = max(now, min(turn, turn_of(terms, state, min(state.line, state.pace), now)))
    return Decision(Verdict.EARLY, turn - now, turn)


def at(terms: BucketTerms, state: BucketState, now: float) -> tuple[BucketTerms, Clock]:
    """The terms in force, and the bucket's clock: the rules are asked with the one, at the time of the other."""
    live = state.live
    return (terms if live is None else live.terms(terms)), Clock(live, now)


def kept_until(terms: BucketTerms, state: BucketState, used: float) -> float:
    """When a state that was last used at `used` may be forgotten.

    It is full again by then, open, and as fast as ever; or a quota; or its override is a year old. Turns from before
    its backend lost its memory are over.
    """
    live = state.live
    kept = terms.keep if live is None or not live.is_overridden else max(terms.keep, YEAR)
    terms, clock = at(terms, state, used)
    full = clock.time
    if terms.step > 0:
        full = turn_of(terms, state, min(state.line, state.pace) - terms.capacity, clock.time)
    recalls_for = 0.0 if live is None else live.recalls_for(used)
    return used + max(kept, clock.real(full - clock.time), clock.slow_for, recalls_for)


def is_young(state: BucketState) -> bool:
    """Whether its backend may just have lost an older state."""
    return state.granted + state.deferred + state.refused < YOUNG


def end_live(state: BucketState, clock: Clock, now: float) -> None:
    """Go by the backend's clock again as soon as nothing is changed any more, and no turn is outstanding.

    Where it was opened early, or tokens came back, somebody may sleep although the line has ended. In a young bucket
    that one's turn would be taken for lost, and replaced by another one.
    """
    live = state.live
    if live is None or live.is_overridden or not clock.is_even or live.recalls_for(now) > 0:
        return
    if live.recalled == ENDLESS and state.waited > 0 and is_young(state):
        return
    if state.line >= -DUST and state.pace >= -DUST:
        state.grid += now - clock.time
        state.live = None
