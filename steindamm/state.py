"""What can be seen of a limiter: `limiter.state()`. Looking changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from steindamm.checks import printable
from steindamm.rules.bucket import BucketState, BucketTerms, at, refill, turn_of
from steindamm.rules.live import Live
from steindamm.rules.semaphore import SemaphoreState as Slots
from steindamm.rules.semaphore import SemaphoreTerms, opens_in, slots
from steindamm.rules.semaphore_live import SemaphoreLive

SECOND = 1e6
LONGEST_SHOWN = 200
LONGEST_PID = 10
MOST_LISTED = 1_000
"""Holders that are named: looking must not keep a server busy."""


@dataclass(frozen=True, slots=True)
class Override:
    """Settings that are in force instead of those that the code says.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> api = SyncTokenBucket("api, overridden", capacity=5)
        >>> api.override(capacity=50, by="on call")
        >>> override = api.state().override
        >>> override.settings["capacity"], override.by
        (50.0, 'on call')

    Parameters:
        settings: The settings by name.
        by: Who set them.
        at: When.
    """

    settings: dict[str, float]
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Counters:
    """What a limiter has answered since its state was begun.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> api = SyncTokenBucket("api, counted", capacity=1)
        >>> api.try_acquire() is None, api.try_acquire() is None
        (False, True)
        >>> api.state().counters
        Counters(granted=1, deferred=0, refused=1, waited=0.0)

    Parameters:
        granted: To how many: start.
        deferred: To how many: come back at your turn.
        refused: To how many: not within what you accept.
        waited: Seconds of waiting handed out.
    """

    granted: int
    deferred: int
    refused: int
    waited: float


@dataclass(frozen=True, slots=True)
class TokenBucketState:
    """A token bucket at one moment. Times are seconds from now.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> api = SyncTokenBucket("api, looked at", capacity=5, refill_frequency=60)
        >>> with api(2):
        ...     pass
        >>> api.state().capacity, round(api.state().tokens), api.state().last_turn_in
        (5.0, 3, 0.0)

    Parameters:
        name: Its name.
        capacity, refill_amount, refill_frequency: The settings in force.
        tokens: Those that are there for a newcomer; 0 where somebody waits, or it is in debt.
        next_token_in: When the next ones arrive; None where it is full, or never refills.
        line_length: Tokens that those in line, or settled costs, have taken in advance.
        last_turn_in: When the last of them is paid for; 0 for nobody in line, None for never.
        closed_for: How long nobody may start; 0 where it is open.
        share: What it has of its rate, after the server that it guards has refused; at most 1.
        override: The settings that are not those of the code, if any.
        counters: What it has answered.
        without_backend: How often this process did without its backend, see `on_unavailable`.
    """

    name: str
    capacity: float
    refill_amount: float
    refill_frequency: float
    tokens: float
    next_token_in: float | None
    line_length: float
    last_turn_in: float | None
    closed_for: float
    share: float
    override: Override | None
    counters: Counters
    without_backend: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot.

    Example:
        >>> import os
        >>> from steindamm import SyncSemaphore
        >>> with SyncSemaphore("writers, held") as permit:
        ...     (holder,) = SyncSemaphore("writers, held").state().holders
        >>> holder.pid == os.getpid(), holder.job_id, holder.age < 60
        (True, None, True)

    Parameters:
        host: The machine.
        pid: The process on it.
        job_id: The job that it runs for, where a queue's worker has said so.
        age: Seconds since it got the slot. Over Redis an estimate as long as the lease has not been renewed, which
            is its first third.
        fence: The number of its lease; over Redis None as long as it has not been renewed.
    """

    host: str
    pid: int
    job_id: str | None
    age: float
    fence: int | None


@dataclass(frozen=True, slots=True)
class SemaphoreState:
    """A semaphore at one moment. Times are seconds from now.

    Example:
        >>> from steindamm import SyncSemaphore
        >>> writers = SyncSemaphore("writers, looked at", capacity=2)
        >>> with writers:
        ...     state = writers.state()
        >>> state.capacity, state.held, state.waiters
        (2, 1, 0)

    Parameters:
        name: Its name.
        capacity: How many slots there are.
        held: How many of them are held; more than there are, where the capacity was lowered meanwhile.
        holders: Who holds one, the oldest first; of very many, a thousand.
        waiters: How many wait, here or in a queue.
        closed_for: How long nobody is given a slot; 0 where it is open.
        override: The settings that are not those of the code, if any.
        counters: What it has answered.
        without_backend: How often this process did without its backend, see `on_unavailable`.
    """

    name: str
    capacity: int
    held: int
    holders: tuple[Holder, ...]
    waiters: int
    closed_for: float
    override: Override | None
    counters: Counters
    without_backend: int = 0


def seen_bucket(name: str, terms: BucketTerms, state: BucketState, now: float, clock_ahead: float) -> TokenBucketState:
    """What a bucket's state says at `now`; its clock is so many microseconds ahead of the Unix epoch's.

    The state is the caller's own: it is refilled.
    """
    terms, clock = at(terms, state, now)
    refill(terms, state, clock.time)
    level = min(state.line, state.pace)
    is_full = level >= terms.capacity
    next_step = state.grid + terms.step - clock.time
    last = turn_of(terms, state, state.line, clock.time)
    speed = state.live.speed if state.live else 1.0
    return TokenBucketState(
        name=name,
        capacity=terms.capacity,
        refill_amount=terms.amount,
        refill_frequency=terms.step / speed / SECOND,
        tokens=max(0.0, level),
        next_token_in=None if is_full or terms.step == 0 else clock.real(next_step) / SECOND,
        line_length=max(0.0, -state.line),
        last_turn_in=None if last == math.inf else 0.0 if state.line >= 0 else clock.real(last - clock.time) / SECOND,
        closed_for=clock.opens_in / SECOND,
        share=clock.share,
        override=_override(state.live, clock_ahead),
        counters=_counters(state),
    )


def seen_semaphore(
    name: str,
    terms: SemaphoreTerms,
    state: Slots,
    now: float,
    clock_ahead: float,
    holders: Iterable[Holder],
    *,
    held: int,
    waiters: int,
) -> SemaphoreState:
    """What a semaphore's state says at `now`, and who holds its slots, and how many do and wait."""
    return SemaphoreState(
        name=name,
        capacity=slots(terms, state),
        held=held,
        holders=tuple(sorted(holders, key=lambda holder: -holder.age)),
        waiters=waiters,
        closed_for=opens_in(state, now) / SECOND,
        override=_override(state.live, clock_ahead),
        counters=_counters(state),
    )


def holder(ticket: str, age: float, fence: int | None) -> Holder:
    """Who a ticket stands for: ``"<host>/<pid>/<random>:<count>:<job>"``."""
    process, _, rest = ticket.partition(":")
    host, pid, *_ = [*process.split("/"), ""]
    job_id = printable(rest.partition(":")[2], LONGEST_SHOWN)
    number = int(pid) if pid.isdecimal() and len(pid) <= LONGEST_PID else 0
    return Holder(printable(host, LONGEST_SHOWN), number, job_id or None, max(0.0, age), fence)


def _counters(state: BucketState | Slots) -> Counters:
    return Counters(int(state.granted), int(state.deferred), int(state.refused), state.waited / SECOND)


def _override(live: Live | SemaphoreLive | None, clock_ahead: float) -> Override | None:
    if live is None or not live.is_overridden:
        return None
    note = _note(live.note)
    settings, by = note.get("settings"), note.get("by")
    return Override(
        settings=settings if isinstance(settings, dict) else {},
        by=printable(by, LONGEST_SHOWN) if isinstance(by, str) else "",
        at=datetime.fromtimestamp((live.set_at - clock_ahead) / SECOND, UTC),
    )


def _note(note: bytes) -> dict[str, Any]:
    """It is for people, so that one that can't be read is left out."""
    try:
        read = json.loads(note)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
