"""A job that was let start, and whose process stood still before it did."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from steindamm import SyncSemaphore, SyncTokenBucket, all_of
from steindamm.integrations import decisions
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Start, again, decide
from steindamm.integrations.job_limits import Claim, JobLimit
from steindamm.sleepers import OVERSLEPT


class Clock:
    """One that a test sets forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(decisions, "monotonic", clock)
    return clock


def started(limiter: Any, accept: float = 0.0) -> tuple[Claim, Start]:
    limit = JobLimit(limiter)
    claim = limit.claim((), {}, "job")
    assert claim is not None
    start = decide(limit, claim, Booking(), accept=accept)
    assert isinstance(start, Start)
    return claim, start


def test_a_start_at_a_bucket_is_missed_half_a_second_after_its_turn(clock: Clock) -> None:
    limiter = SyncTokenBucket("missed", capacity=1, refill_frequency=3.0)
    for accept in (0.0, 3.0):
        clock.ahead = 0.0
        _, start = started(limiter, accept)
        clock.ahead += start.wait + OVERSLEPT / 2
        assert not start.is_missed
        clock.ahead += OVERSLEPT / 2
        assert start.is_missed


def test_a_slot_that_is_still_held_is_not_missed_however_late_its_job_is(clock: Clock) -> None:
    _, start = started(SyncSemaphore("missed", capacity=1))
    clock.ahead += 1_000
    assert not start.is_missed


def test_several_limits_are_missed_as_soon_as_one_of_them_is(clock: Clock) -> None:
    limits = [SyncSemaphore("missed too", capacity=1), SyncTokenBucket("missed too", capacity=1)]
    _, start = started(all_of(*limits))
    assert not start.is_missed
    clock.ahead += 2 * OVERSLEPT
    assert start.is_missed


def test_a_job_asks_anew_with_the_turn_that_it_has_missed() -> None:
    claim, start = started(SyncTokenBucket("asked anew", capacity=1))
    assert again(claim, Booking(), start).turn_at("asked anew") == start.answer.turn
    claim, start = started(SyncSemaphore("asked anew", capacity=1))
    assert again(claim, Booking(), start).turn is None
