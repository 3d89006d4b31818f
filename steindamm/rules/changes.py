"""What changes a bucket while it runs: closing, reopening, slowing down, overriding.

Each sets the bucket's clock anew, see `steindamm.rules.live`; what is given out by then moves with it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from steindamm.rules.bucket import BucketState, BucketTerms, at, end_live, grid_start, is_young, refill
from steindamm.rules.live import UNSET, Clock, Live


class Kind(StrEnum):
    """What is done to a bucket; the script is told the same words."""

    CLOSE_FOR = "close for"
    CLOSE_UNTIL = "close until"
    REOPEN = "reopen"
    BACK_OFF = "back off"
    OVERRIDE = "override"


class Change(NamedTuple):
    """One change of a bucket.

    Parameters:
        kind: What is done.
        numbers: To close, for how long, or until when; to back off, for how long, and as `back_off` has them what
            the rate falls by and how it recovers; to override, what `override_of` gives. Times in microseconds.
        note: Who overrides, and with what, for people.
    """

    kind: Kind
    numbers: tuple[float, ...] = ()
    note: bytes = b""


NO_OVERRIDE = (UNSET, UNSET, UNSET, UNSET, 1.0)
"""The numbers that put in force what the code says."""
COOL = 1e6
"""Microseconds after the rate fell in which it does not again: what was sent before may still be refused."""


def override_of(own: BucketTerms, wanted: BucketTerms) -> tuple[float, ...]:
    """The numbers that put `wanted` in force where the code says `own`.

    A token costs as much bucket time as before, so that the turns in line stay in their order; another rate is
    another speed of the clock. A calendar's clock is not to be touched.
    """
    if own.step == 0 or own.anchor >= 0:
        return wanted.capacity, wanted.amount, wanted.step, wanted.anchor, 1.0
    more = wanted.amount / own.amount
    return wanted.capacity, wanted.amount, own.step * more, UNSET, more * (own.step / wanted.step)


def change(terms: BucketTerms, state: BucketState, now: float, wanted: Change) -> None:
    """Make one change of any kind."""
    kind, numbers, note = wanted
    if state.live is None:
        state.live = Live(now)
        if not is_young(state):
            state.live.born = 0.0
    if kind is Kind.OVERRIDE:
        _override(terms, state, state.live, now, numbers, note)
    elif kind is Kind.REOPEN:
        _open(at(terms, state, now)[0], state, state.live, now)
    elif kind is Kind.BACK_OFF:
        _back_off(terms, state, state.live, now, *numbers)
    else:
        (time,) = numbers
        _close(terms, state, state.live, now, time if kind is Kind.CLOSE_UNTIL else now + time)
    end_live(state, Clock(state.live, now), now)


def _close(terms: BucketTerms, state: BucketState, live: Live, now: float, until: float) -> None:
    """Let nobody start before then; where it is closed for longer, it stays so."""
    terms, clock = at(terms, state, now)
    if until <= max(now, live.since):
        return
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


def _open(terms: BucketTerms, state: BucketState, live: Live, now: float) -> None:
    """Let those start who may, from now on."""
    clock = Clock(live, now)
    if clock.opens_in == 0:
        return
    time = clock.time
    if _is_on_calendar(terms):
        _take_back_refills(terms, state, live, now)
        time = now
    _set(live, now, time, clock.share)
    live.since = now
    live.span = 0.0


def _back_off(
    terms: BucketTerms,
    state: BucketState,
    live: Live,
    now: float,
    wait: float,
    factor: float,
    least: float,
    recovery: float,
) -> None:
    """Close after the server has refused, and go on slower; where it is closed already, the rate has fallen.

    What the bucket had saved up is gone: the server has nothing of the kind.

    Parameters:
        wait: For how long to close.
        factor: What is left of the rate.
        least: The smallest share of the rate that is ever left.
        recovery: The time in which the share grows by 1.
    """
    view, clock = at(terms, state, now)
    may_slow = view.step > 0 and not _is_on_calendar(view)
    if may_slow and clock.opens_in == 0 and now >= live.cut_at + COOL:
        refill(view, state, clock.time)
        state.line, state.pace = min(0.0, state.line), min(0.0, state.pace)
        _set(live, now, clock.time, max(least, clock.share * factor))
        live.since = live.cut_at = now
        live.recovery = recovery
    _close(terms, state, live, now, now + wait)


def _override(
    terms: BucketTerms, state: BucketState, live: Live, now: float, numbers: tuple[float, ...], note: bytes
) -> None:
    """Put other terms in force, or those that the code says; nobody loses a turn."""
    old, _ = at(terms, state, now)
    until = live.since
    _open(old, state, live, now)
    clock = Clock(live, now)
    refill(old, state, clock.time)
    _set(live, now, clock.time, clock.share)
    live.since = now
    live.capacity, live.amount, live.step, live.anchor, live.speed = numbers
    live.set_at, live.note = now, note
    _fit(old, live.terms(terms), state, clock.time)
    _close(terms, state, live, now, until)


def _fit(old: BucketTerms, new: BucketTerms, state: BucketState, time: float) -> None:
    """A quota's tokens are all it ever has: what is added to it is there at once. A calendar's grid follows it."""
    if new.step == 0:
        state.line += new.capacity - old.capacity
        state.pace += new.capacity - old.capacity
    if _is_on_calendar(new):
        state.grid = grid_start(new, time)


def _is_on_calendar(terms: BucketTerms) -> bool:
    return terms.anchor >= 0 and terms.step > 0


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
