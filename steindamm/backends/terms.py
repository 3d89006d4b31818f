"""Settings (seconds, datetimes) in the units of the rules (microseconds on the backend's clock)."""

from __future__ import annotations

import time
from functools import lru_cache

from steindamm.rules.bucket import BucketTerms
from steindamm.rules.changes import Change, Kind
from steindamm.rules.semaphore import SemaphoreTerms
from steindamm.settings import BucketSettings, SemaphoreSettings

MICROSECONDS = 1_000_000.0
PRESENCE = 6.0
"""Seconds after which a waiter that has not been heard of is passed over."""
QUOTA_KEPT = 366 * 86_400.0
"""Seconds that a quota is remembered after its last use: it never refills, but no state lives for ever."""


def bucket_terms(settings: BucketSettings, clock_ahead: float) -> BucketTerms:
    """The terms of a bucket on a backend whose clock is `clock_ahead` microseconds ahead of the Unix epoch's."""
    step = settings.refill_frequency * MICROSECONDS
    initial = settings.capacity if settings.initial_tokens is None else settings.initial_tokens
    start = settings.window_start_time
    anchor = -1.0 if start is None else (start.timestamp() * MICROSECONDS + clock_ahead) % step
    keep = max(settings.expiry, QUOTA_KEPT if settings.never_refills else 0.0) * MICROSECONDS
    return _one_for_all(settings.capacity, settings.refill_amount, step, initial, anchor, keep)


@lru_cache(1024)
def _one_for_all(*terms: float) -> BucketTerms:
    """Many buckets have the same terms."""
    return BucketTerms(*terms)


def semaphore_terms(settings: SemaphoreSettings) -> SemaphoreTerms:
    """The terms of a semaphore; a waiter is present for no longer than a lease would last."""
    lease = settings.expiry * MICROSECONDS
    return SemaphoreTerms(settings.capacity, lease, min(lease, PRESENCE * MICROSECONDS))


def on_clock(change: Change, clock_ahead: float) -> Change:
    """A change on a backend whose clock is `clock_ahead` microseconds ahead of the Unix epoch's."""
    if change.kind is not Kind.CLOSE_UNTIL:
        return change
    return change._replace(numbers=(change.numbers[0] + clock_ahead,))


def wall_clock() -> float:
    """Microseconds since the Unix epoch."""
    return time.time() * MICROSECONDS
