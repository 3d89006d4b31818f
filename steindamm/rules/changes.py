"""What changes a bucket while it runs: closing, reopening, cutting, overriding.

Each sets the bucket's clock anew; see `steindamm.rules.live`. What is given out by then moves with it.
"""

from __future__ import annotations

from typing import NamedTuple

from steindamm.rules.bucket import BucketState, BucketTerms, at, end_live, grid_start, refill
from steindamm.rules.live import COOL, UNSET, Clock, Live


class Cut(NamedTuple):
    """How a bucket's rate falls and recovers.

    Parameters:
        factor: What is left of the rate after a cut.
        least: The smallest share of the rate that is left after any number of cuts.
        recovery: Microseconds in which the share grows by 1.
    """

    factor: float
    least: float
    recovery: float


class Override(NamedTuple):
    """Terms that are to be in force instead of those that the code says.

    Parameters:
        capacity: The most tokens it holds.
        amount: Tokens that arrive each step.
        step: Microseconds of bucket time between refills; 0 for a quota.
        anchor: A moment of the refill grid, or a negative number for none.
        speed: The rate as a multiple of the one that the code says.
    """

    capacity: float
    amount: float
    step: float
    anchor: float
    speed: float


WITHOUT = Override(UNSET, UNSET, UNSET, UNSET, 1.0)
"""The terms that the code says."""


def override_of(own: BucketTerms, wanted: BucketTerms) -> Override:
    """The override that puts `wanted` in force where the code says `own`.

    A token costs as much bucket time as before, so that the turns in line stay in their order, and another rate
    is another speed of the clock. A calendar's clock is not to be touched.
    """
    if own.step == 0 or own.anchor >= 0:
        return Override(wanted.capacity, wanted.amount, wanted.step, wanted.anchor, 1.0)
    more = wanted.amount / own.amount
    return Override(wanted.capacity, wanted.amount, own.step * more, UNSET, more * (own.step / wanted.step))


def close(terms: BucketTerms, state: BucketState, now: float, until: float) -> None:
    """Let nobody start before then; where it is closed for longer, it stays so."""
    live = _live(state, now)
    terms, clock = at(terms, state, now)
    if until > max(now, live.since):
        if _is_on_calendar(terms):
            _open(terms, state, live, now)
            refill(terms, state, now)
            live.line, live.pace, live.grid = state.line, state.pace, state.grid
            refill(terms, state, until)
            _set(live, now, until, clock.share)
        else:
            _set(live, now, clock.time, clock.share)
        live.since = until
        live.span = until - now
    end_live(state, Clock(live, now), now)


def reopen(terms: BucketTerms, state: BucketState, now: float) -> None:
    """Let those start who may, from now on."""
    live = state.live
    if live is not None:
        terms, _ = at(terms, state, now)
        _open(terms, state, live, now)
        end_live(state, Clock(live, now), now)


def back_off(terms: BucketTerms, state: BucketState, now: float, until: float, cut: Cut) -> None:
    """Close after the server has refused, and go on slower; those that were under way meanwhile change nothing."""
    live = _live(state, now)
    view, clock = at(terms, state, now)
    may_cut = view.step > 0 and not _is_on_calendar(view)
    if may_cut and clock.opens_in == 0 and now >= live.cut_at + COOL:
        _set(live, now, clock.time, max(cut.least, clock.share * cut.factor))
        live.since = live.cut_at = now
        live.recovery = cut.recovery
    close(terms, state, now, until)


def override(terms: BucketTerms, state: BucketState, now: float, wanted: Override, note: bytes = b"") -> None:
    """Put other terms in force, or those that the code says; nobody loses a turn."""
    live = _live(state, now)
    old, _ = at(terms, state, now)
    until = live.since
    _open(old, state, live, now)
    clock = Clock(live, now)
    refill(old, state, clock.time)
    _set(live, now, clock.time, clock.share)
    live.since = now
    live.capacity, live.amount, live.step, live.anchor, live.speed = wanted
    live.set_at, live.note = now, note
    _fit(old, live.terms(terms), state, clock.time)
    close(terms, state, now, until)


def _open(terms: BucketTerms, state: BucketState, live: Live, now: float) -> None:
    clock = Clock(live, now)
    if clock.opens_in > 0:
        on_calendar = _is_on_calendar(terms)
        if on_calendar:
            _take_back_refills(terms, state, live, now)
        _set(live, now, now if on_calendar else clock.time, clock.share)
        live.since = now
        live.span = 0.0


def _fit(old: BucketTerms, new: BucketTerms, state: BucketState, time: float) -> None:
    """A quota's tokens are all it ever has: what is added to it is there at once. A calendar's grid follows it."""
    if new.step == 0:
        state.line += new.capacity - old.capacity
        state.pace += new.capacity - old.capacity
    if _is_on_calendar(new):
        state.grid = grid_start(new, time)


def _is_on_calendar(terms: BucketTerms) -> bool:
    return terms.anchor >= 0 and terms.step > 0


def _live(state: BucketState, now: float) -> Live:
    if state.live is None:
        state.live = Live(now)
    return state.live


def _set(live: Live, now: float, time: float, share: float) -> None:
    live.changed = now
    live.time = time
    live.share = share


def _take_back_refills(terms: BucketTerms, state: BucketState, live: Live, now: float) -> None:
    """Those that were counted up to the end of the closure and are not there yet."""
    here = max(live.grid, grid_start(terms, now))

    def level(before: float, grid: float) -> float:
        return min(terms.capacity, before + round((grid - live.grid) / terms.step) * terms.amount)

    state.line = level(live.line, here) - (level(live.line, state.grid) - state.line)
    state.pace = level(live.pace, here) - (level(live.pace, state.grid) - state.pace)
    state.grid = here
