"""What becomes of a job whose own code met a "not now": that of a limiter that refused, or that of a server.

A server's is for all: it closes what limits the job. The job has had its start, and its tokens are spent. It comes
back for another one, whose turn is booked at the closed limiter: so it starts after the reopening, in line with all
others, at the limit's own rate.

The two functions that close and ask, `put_off` and `aput_off`, differ in nothing but the await.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from steindamm.errors import LimiterUnavailableError, MaxSleepExceededError, Throttled
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Decision, Defer, Fail, Start, adecide, decide, time_left
from steindamm.integrations.job_limits import Claim, JobLimit, limits_of
from steindamm.token_bucket import TokenBucket

logger = logging.getLogger("steindamm")

LONGEST_BACKOFF = 60.0
"""Seconds; the longest wait after a refusal that did not tell one."""


class Closing(NamedTuple):
    """What a server's "not now" asks for.

    Parameters:
        pause: Seconds until the job may come back.
        pauses: What to close, of those that limit the job, and for how many seconds.
        error: What the job's code raised.
    """

    pause: float
    pauses: Mapping[Any, float]
    error: Exception


def put_off(job: JobLimit, claim: Claim | None, booking: Booking, error: Exception) -> Defer | Fail:
    """What becomes of a job with a sync limiter whose code raised one of `JobLimit.not_now`.

    Parameters:
        job: The limit of its task.
        claim: What it had asked for; None where nothing limits it.
        booking: What it carried.
        error: The error.
    """
    told = reading(job, claim, booking, error)
    if not isinstance(told, Closing):
        return told
    if claim is None:
        return away(told, job, booking, "")
    for closed, pause in told.pauses.items():
        try:
            closed.back_off(pause)
        except LimiterUnavailableError as silence:
            logger.warning("%s: it could not be closed", silence)
    decision = decide(job, claim, booking._replace(turn=None), accept=0.0)
    if isinstance(decision, Start):
        limiter: Any = claim.limiter
        with suppress(LimiterUnavailableError):
            limiter.give_back(decision.answer)
    return _put_off(told, job, booking, claim, decision)


async def aput_off(job: JobLimit, claim: Claim | None, booking: Booking, error: Exception) -> Defer | Fail:
    """The same with an async limiter; the twin of `put_off`."""
    told = reading(job, claim, booking, error)
    if not isinstance(told, Closing):
        return told
    if claim is None:
        return away(told, job, booking, "")
    for closed, pause in told.pauses.items():
        try:
            await closed.back_off(pause)
        except LimiterUnavailableError as silence:
            logger.warning("%s: it could not be closed", silence)
    decision = await adecide(job, claim, booking._replace(turn=None), accept=0.0)
    if isinstance(decision, Start):
        limiter: Any = claim.limiter
        with suppress(LimiterUnavailableError):
            await limiter.give_back(decision.answer)
    return _put_off(told, job, booking, claim, decision)


def reading(job: JobLimit, claim: Claim | None, booking: Booking, error: Exception) -> Closing | Defer | Fail:
    """What an error says: a server's "not now", a limiter's, or none."""
    try:
        pause = job.throttle_on.pause(error)
        if pause is not None:
            return Closing(pause, dict.fromkeys(closed_by(claim, error) if claim else (), pause), error)
    except Exception as failure:  # noqa: BLE001
        return _fail(failure, error)
    if isinstance(error, MaxSleepExceededError):
        return _refused(job, booking, error)
    if isinstance(error, ExceptionGroup):
        return _together(error, [reading(job, claim, booking, each) for each in error.exceptions])
    return Fail(error)


def _together(group: ExceptionGroup[Exception], told: Sequence[Closing | Defer | Fail]) -> Closing | Defer | Fail:
    """What several errors say: "not now" where each of them does, and the longest wait counts."""
    for one in told:
        if isinstance(one, Fail):
            return Fail(group) if one.error in group.exceptions else one
    closings = [one for one in told if isinstance(one, Closing)]
    if not closings:
        return max((one for one in told if isinstance(one, Defer)), key=lambda defer: defer.wait)
    pauses: dict[Any, float] = {}
    for closing in closings:
        for limiter, pause in closing.pauses.items():
            pauses[limiter] = max(pause, pauses.get(limiter, 0.0))
    return Closing(max(closing.pause for closing in closings), pauses, group)


def closed_by(claim: Claim, error: Exception) -> Sequence[Any]:
    """Which of a job's limiters a server's "not now" closes: the one that it names, or all buckets, or else all.

    Raises:
        ValueError: It names none of them.
    """
    parts = limits_of(claim.limiter)
    name = error.limiter if isinstance(error, Throttled) else None
    if name is None:
        return [part for part in parts if isinstance(part, TokenBucket)] or parts
    named = [part for part in parts if part.name == name]
    if not named:
        raise ValueError(f"limiter of Throttled must be one of the job's, {claim.limiter.name!r}, not {name!r}")
    return named


def away(told: Closing, job: JobLimit, booking: Booking, limiter: str) -> Defer | Fail:
    """What becomes of a job about which there is no use in asking before the pause is over."""
    now = time.time()
    if told.pause > time_left(job, booking, now):
        return _fail(MaxSleepExceededError(limiter, told.pause, job.max_deferral), told.error)
    return Defer(told.pause, booking.deferred(limiter, None, now)._replace(until=now + told.pause))


def _put_off(told: Closing, job: JobLimit, booking: Booking, claim: Claim, decision: Decision) -> Defer | Fail:
    """It may have been told to start, where there was no pause, or to come and ask again."""
    if isinstance(decision, Fail):
        return _fail(decision.error, told.error)
    if isinstance(decision, Defer) and decision.answer is not None:
        return decision
    wait = decision.wait if isinstance(decision, Defer) else 0.0
    return away(told._replace(pause=max(told.pause, wait)), job, booking, claim.limiter.name)


def _fail(failure: Exception, cause: Exception) -> Fail:
    if failure is not cause:
        failure.__cause__ = cause
    return Fail(failure)


def _refused(job: JobLimit, booking: Booking, error: MaxSleepExceededError) -> Defer | Fail:
    now = time.time()
    wait = error.retry_after
    if wait is None or not 0 <= wait < math.inf:
        longest = min(LONGEST_BACKOFF, 2.0 ** min(booking.deferrals, 10))
        wait = longest * random.uniform(0.5, 1.0)  # noqa: S311
    if wait > time_left(job, booking, now):
        return Fail(error)
    return Defer(wait, booking.deferred(error.name, None, now)._replace(until=now + wait))
