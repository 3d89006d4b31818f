"""A limit that is closed, and then overridden, while real workers run its jobs: what their calls show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

EARLY = 0.03
"""Seconds by which a moment may be written down before the one that it is compared with."""
LATE = 0.3
"""Seconds that a job which was let start may take to get there, on a loaded machine."""

RATE, CAPACITY, JOBS, CLOSED = 50, 5, 200, 2.0
SLOW, FEW = 5, 12


def most_in_a_second(moments: list[float]) -> int:
    moments = sorted(moments)
    return max(sum(first <= moment < first + 1 for moment in moments) for first in moments)


def check_closure(moments: list[float], closed_at: float) -> None:
    """Nobody starts while it is closed, and nobody faster than the limit allows when it opens."""
    late = [moment for moment in moments if closed_at + LATE < moment < closed_at + CLOSED - EARLY]
    assert len(late) <= 2, "more than those who had been let start before"
    after = sorted(moment for moment in moments if moment >= closed_at + CLOSED - EARLY)
    assert len(after) > JOBS // 2
    for place, moment in enumerate(after):
        assert moment > closed_at + CLOSED + (place - CAPACITY) / RATE - EARLY
    assert most_in_a_second(after) <= RATE + CAPACITY + RATE * LATE


def check_override(api: Any, send: Callable[[int, int], None], called: Callable[[int, int], list[float]]) -> None:
    """All workers follow an override from their next call on, and the code again when it is cleared.

    Parameters:
        api: The limiter, RATE a second, CAPACITY at once.
        send: Sends the jobs from this number to that one.
        called: Waits for them; gives when they called.
    """
    api.override(capacity=1, refill_frequency=1 / SLOW, by="a test")
    assert api.state().override.by == "a test"
    send(1_000, 1_000 + FEW)
    slow = sorted(called(1_000, 1_000 + FEW))
    assert slow[-1] - slow[0] > (FEW - 1) / SLOW - LATE
    assert all(moment > slow[0] + (place - 1) / SLOW - LATE for place, moment in enumerate(slow))
    api.clear_override()
    send(2_000, 2_000 + FEW)
    fast = sorted(called(2_000, 2_000 + FEW))
    assert fast[-1] - fast[0] < (FEW - 1) / SLOW
