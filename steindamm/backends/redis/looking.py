"""What the server remembers of a limiter, for people: decoded here, from the bytes in which the scripts keep it."""

from __future__ import annotations

import struct
from struct import Struct
from typing import Any

from steindamm.backends.terms import MICROSECONDS
from steindamm.errors import LimiterUnavailableError
from steindamm.rules.bucket import BucketState, BucketTerms
from steindamm.rules.live import Live
from steindamm.rules.semaphore import SemaphoreState as Slots
from steindamm.rules.semaphore import SemaphoreTerms
from steindamm.rules.semaphore_live import SemaphoreLive
from steindamm.state import Holder, SemaphoreState, TokenBucketState, holder, seen_bucket, seen_semaphore

BUCKET = Struct("<7d")
BUCKET_LIVE = Struct("<18d")
SEMAPHORE = Struct("<16d")
SEMAPHORE_LIVE = Struct("<3d")
GARBAGE = (struct.error, ValueError, TypeError, ArithmeticError)
"""What reading raises where somebody else has written to our keys."""


def look_at_bucket(name: str, terms: BucketTerms, reply: list[Any]) -> TokenBucketState:
    """What the reply of the script that looks at a bucket says."""
    try:
        now, packed = reply
        return seen_bucket(name, terms, _bucket(terms, now, bytes.fromhex(_text(packed))), now, clock_ahead=0.0)
    except GARBAGE:
        raise LimiterUnavailableError(name, "malformed state") from None


def look_at_semaphore(name: str, terms: SemaphoreTerms, reply: list[Any]) -> SemaphoreState:
    """What the reply of the script that looks at a semaphore says."""
    try:
        now, packed, held, waiters, *holders = reply
        state = _semaphore(bytes.fromhex(_text(packed)))
        now = max(now, state.seen)
        each = iter(holders)
        listed = [_holder(terms, now, *lease) for lease in zip(each, each, each, strict=True)]
        return seen_semaphore(name, terms, state, now, 0.0, listed, held=held, waiters=waiters)
    except GARBAGE:
        raise LimiterUnavailableError(name, "malformed state") from None


def _text(value: str | bytes) -> str:
    """A client gives bytes or, if it was told so, text."""
    return value.decode() if isinstance(value, bytes) else value


def _bucket(terms: BucketTerms, now: float, packed: bytes) -> BucketState:
    state = BucketState(terms, now)
    if not packed:
        return state
    (
        state.line, state.pace, state.grid, state.granted, state.deferred, state.refused, state.waited,
    ) = BUCKET.unpack_from(packed)  # fmt: skip
    if len(packed) > BUCKET.size:
        live = state.live = Live(now)
        (
            live.changed, live.time, live.since, live.span, live.share, live.recovery, live.cut_at, live.speed,
            live.capacity, live.amount, live.step, live.anchor, live.set_at, live.line, live.pace, live.grid,
            live.born, live.recalled,
        ) = BUCKET_LIVE.unpack_from(packed, BUCKET.size)  # fmt: skip
        live.note = packed[BUCKET.size + BUCKET_LIVE.size :]
    return state


def _semaphore(packed: bytes) -> Slots:
    """Its numbers; who stands in line is not looked at."""
    state = Slots()
    if not packed:
        return state
    (
        state.capacity, _, _, _, state.earliest, state.fading, state.seen, state.fence, state.arrivals, state.mean,
        state.granted, state.deferred, state.refused, state.waited, _, _,
    ) = SEMAPHORE.unpack_from(packed)  # fmt: skip
    if len(packed) > SEMAPHORE.size:
        live = state.live = SemaphoreLive()
        live.reopens, live.capacity, live.set_at = SEMAPHORE_LIVE.unpack_from(packed, SEMAPHORE.size)
        live.note = packed[SEMAPHORE.size + SEMAPHORE_LIVE.size :]
    return state


def _holder(terms: SemaphoreTerms, now: float, end: float, fence: int, ticket: str | bytes) -> Holder:
    """Who holds a lease. A fencing number is the time at which it was given; it is kept from the first renewal on.

    Before that the lease has the end that it was given: of a slot that was handed over, the end of the presence.
    """
    span = terms.presence if end - now <= terms.presence else terms.lease
    since = fence or end - span
    who = bytes.fromhex(_text(ticket)).decode(errors="replace")
    return holder(who, (now - since) / MICROSECONDS, fence or None)
