"""Turns a limiter's answer about a job into one of three: start, defer, or fail.

The two functions that ask, `decide` and `adecide`, differ in nothing but the await.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steindamm.answers import Answer
from steindamm.clock import monotonic
from steindamm.errors import (
    LimiterUnavailableError,
    MaxSleepExceededError,
    NoTokensAvailableError,
)
from steindamm.integrations.bookings import Booking
from steindamm.integrations.job_limits import MAX_BOOKING, Claim, JobLimit
from steindamm.permits import Permit, SlotPermit
from steindamm.rules import bucket
from steindamm.several_limits import AllOf, AllOfPermit
from steindamm.sleepers import OVERSLEPT
from steindamm.token_bucket import TokenBucket
from steindamm.visits import LITTLE

UNAVAILABLE_WAIT = 1.0
"""Seconds after which a backend that did not answer is asked again, half of it and half at random."""


@dataclass(slots=True, eq=False)
class Start:
    """The job may start. It is one of a kind, and not frozen: to set a field of what is takes a call for each.

    Parameters:
        wait: Seconds until then.
        answer: What the limiter gave; its permit is given back with `give_back` or, after the job, released.
    """

    wait: float
    answer: Answer
    _given_at: float = field(default_factory=monotonic)

    @property
    def is_missed(self) -> bool:
        """Whether it came to nothing, since the worker stood still, or had no room: the job has to ask again.

        Others may have its slot by now, or its turn is so long ago that it would start together with later ones.
        """
        permit = self.answer.permit
        is_late = monotonic() > self._given_at + self.wait + OVERSLEPT
        if isinstance(permit, AllOfPermit):
            return any(_is_gone(part, is_late=is_late) for part in permit.permits)
        return _is_gone(permit, is_late=is_late)


def _is_gone(permit: Permit | None, *, is_late: bool) -> bool:
    return permit.lost if isinstance(permit, SlotPermit) else is_late


@dataclass(frozen=True, slots=True)
class Defer:
    """The job goes back to its queue.

    Parameters:
        wait: Seconds until it is worth coming back.
        booking: What it comes back with.
        answer: The limiter's answer; None where it gave none.
    """

    wait: float
    booking: Booking
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Unavailable(Defer):
    """The backend did not answer: the job is to be asked about again.

    Parameters:
        error: Why not.
    """

    error: LimiterUnavailableError | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """The job fails with an error.

    Parameters:
        error: The error.
        silence: Why the backend did not answer; None where it did.
    """

    error: Exception
    silence: LimiterUnavailableError | None = None


Decision = Start | Defer | Fail


def decide(
    job: JobLimit, claim: Claim, booking: Booking, *, accept: float, wake: Callable[[], None] | None = None
) -> Decision:
    """Ask a sync limiter about a job.

    Parameters:
        job: The limit of its task.
        claim: What it asks for.
        booking: What it carries.
        accept: The longest wait for the start, in seconds, that the worker can bear.
        wake: At a semaphore: called when the job is handed a slot; without it the job goes away. From several
            limits at once it always does.
    """
    now = time.time()
    limiter: Any = claim.limiter
    try:
        answer = limiter.ask(**_question(job, claim, booking, now, accept, wake))
    except LimiterUnavailableError as error:
        return unanswered(job, claim, booking, error)
    decision = _decided(job, claim, booking, now, answer)
    if isinstance(decision, Fail):
        limiter.give_back(answer)
    return decision


class Asking(NamedTuple):
    """What a bucket is asked about a job, for one who sends it himself; the first half of `decide`."""

    job: JobLimit
    claim: Claim
    booking: Booking
    asked_at: float
    request: bucket.Request


def asking(job: JobLimit, claim: Claim, booking: Booking, *, accept: float) -> Asking:
    """What to ask; the parameters are those of `decide`."""
    now = time.time()
    limiter: Any = claim.limiter
    return Asking(job, claim, booking, now, limiter.asking(**_question(job, claim, booking, now, accept, None)))


def decided(asked: Asking, answer: bucket.Decision) -> Decision:
    """What the answer means for the job; the second half of `decide`. A bucket gives nothing to a job that fails."""
    limiter: Any = asked.claim.limiter
    return _decided(asked.job, asked.claim, asked.booking, asked.asked_at, limiter.answer(asked.request, answer))


async def adecide(
    job: JobLimit, claim: Claim, booking: Booking, *, accept: float, wake: Callable[[], None] | None = None
) -> Decision:
    """Ask an async limiter about a job; the twin of `decide`."""
    now = time.time()
    limiter: Any = claim.limiter
    try:
        answer = await limiter.ask(**_question(job, claim, booking, now, accept, wake))
    except LimiterUnavailableError as error:
        return unanswered(job, claim, booking, error)
    decision = _decided(job, claim, booking, now, answer)
    if isinstance(decision, Fail):
        await limiter.give_back(answer)
    return decision


def unanswered(job: JobLimit, claim: Claim, booking: Booking, error: LimiterUnavailableError) -> Unavailable | Fail:
    """What becomes of a job whose limiter's backend does not answer."""
    now = time.time()
    if time_left(job, booking, now) == 0:
        return Fail(MaxSleepExceededError(claim.limiter.name, None, job.max_deferral), silence=error)
    wait = UNAVAILABLE_WAIT * random.uniform(0.5, 1.0)  # noqa: S311
    return Unavailable(wait, booking.deferred(booking.limiter, booking.turn, now), error=error)


def silence_of(decision: Decision) -> LimiterUnavailableError | None:
    """Why the backend did not answer; None where it did."""
    if isinstance(decision, Unavailable):
        return decision.error
    return decision.silence if isinstance(decision, Fail) else None


def again(claim: Claim, booking: Booking, missed: Start) -> Booking:
    """What a job asks anew with that has missed its start, and given back what it was given."""
    return booking.deferred(claim.limiter.name, missed.answer.turn, time.time())


def release(claim: Claim, start: Start) -> None:
    """Give back what a job that has ended held at a sync limiter."""
    limiter: Any = claim.limiter
    if holds_slots(start):
        limiter.release(start.answer.permit)


def holds_slots(start: Start) -> bool:
    """Whether a job that starts has to give anything back when it has ended."""
    permit = start.answer.permit
    return permit.has_slots if isinstance(permit, AllOfPermit) else isinstance(permit, SlotPermit)


def permit_of(start: Start | None) -> Permit | None:
    """What lets a job run; None where nothing limits it."""
    return None if start is None else start.answer.permit


def time_left(job: JobLimit, booking: Booking, now: float) -> float:
    """Seconds that the job may still wait."""
    return math.inf if job.max_deferral is None else max(0.0, job.max_deferral - booking.waited(now))


def _question(
    job: JobLimit, claim: Claim, booking: Booking, now: float, accept: float, wake: Callable[[], None] | None
) -> dict[str, Any]:
    limiter, horizon = claim.limiter, _horizon(job, booking, now)
    turn = booking.turn_at(limiter.name)
    if isinstance(limiter, AllOf):
        turn = turn if isinstance(turn, tuple) and len(turn) == limiter.turns else None
        return {
            "turn": turn,
            "accept": min(accept, LITTLE),
            "horizon": horizon,
            "slack": UNAVAILABLE_WAIT,
            "job": claim.job_id,
        }
    turn = None if isinstance(turn, tuple) else turn
    if isinstance(limiter, TokenBucket):
        return {"cost": claim.cost, "accept": accept, "horizon": horizon, "turn": turn}
    return {"turn": turn, "slack": UNAVAILABLE_WAIT, "wake": wake, "job": claim.job_id}


def _horizon(job: JobLimit, booking: Booking, now: float) -> float:
    return min(MAX_BOOKING, time_left(job, booking, now))


def _decided(job: JobLimit, claim: Claim, booking: Booking, now: float, answer: Answer) -> Decision:
    name = claim.limiter.name
    if answer.permit is not None:
        return Start(answer.wait, answer)
    patience = time_left(job, booking, now)
    if answer.turn is not None and (patience > 0 or answer.ticket is None):
        wait = answer.wait if answer.ticket is None else min(answer.wait, patience)
        return Defer(wait, booking.deferred(name, answer.turn, now), answer)
    refuser = answer.limiter or name
    if answer.wait == math.inf:
        return Fail(answer.error or NoTokensAvailableError(refuser))
    if answer.wait > patience or answer.ticket is not None:
        return Fail(MaxSleepExceededError(refuser, answer.wait, job.max_deferral))
    kept = booking.turn_at(name) if isinstance(claim.limiter, AllOf) else None
    return Defer(_later(answer.wait), booking.deferred(name, kept, now))


def _later(wait: float) -> float:
    """When one beyond the horizon comes back: not with all the others."""
    return min(wait, MAX_BOOKING * random.uniform(0.5, 1.0))  # noqa: S311
