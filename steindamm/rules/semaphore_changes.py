"""What changes a semaphore while it runs: closing, reopening, another number of slots."""

from __future__ import annotations

import math

from steindamm.rules.changes import Change, Kind
from steindamm.rules.semaphore import HandOver, SemaphoreState, SemaphoreTerms, slots, tend
from steindamm.rules.semaphore_live import SemaphoreLive


def change(terms: SemaphoreTerms, state: SemaphoreState, now: float, wanted: Change) -> list[HandOver]:
    """Make one change of any kind; returns those who are handed a slot by it.

    Those who hold a slot keep it, and those who wait keep their places. Where it is closed for longer, it stays so.
    """
    state.capacity = state.capacity or terms.capacity
    handed = tend(state, now)
    live = state.live = state.live or SemaphoreLive()
    kind, numbers, note = wanted
    if kind is Kind.REOPEN:
        live.reopens = -math.inf
    elif kind is Kind.OVERRIDE:
        live.capacity, live.set_at, live.note = numbers[0], now, note
        state.capacity = slots(terms, state)
    else:
        until = numbers[0] if kind is Kind.CLOSE_UNTIL else now + numbers[0]
        live.reopens = max(live.reopens, until)
    return handed + tend(state, now)
