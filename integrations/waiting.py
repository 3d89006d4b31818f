"""Tells the index for people where jobs wait, see `steindamm.where_is`. It takes no call, and never fails a job."""

from __future__ import annotations

import logging
from typing import Any

from steindamm.answers import Answer
from steindamm.backends.redis.waiting_jobs import Line, Note
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Defer, Unavailable
from steindamm.integrations.job_limits import Claim, limits_of
from steindamm.semaphore import Semaphore

logger = logging.getLogger("steindamm")


def note_wait(claim: Claim | None, booking: Booking, defer: Defer | None = None) -> None:
    """A job waits.

    Parameters:
        claim: What it asked for; of a job that nothing limits nothing is noted.
        booking: What it carries.
        defer: What was decided; None where nobody could tell.
    """
    if not isinstance(defer, Unavailable):
        _note(claim, booking, defer)


def note_end(claim: Claim | None, booking: Booking) -> None:
    """A job that has waited starts, or fails."""
    if booking.deferrals:
        _note(claim, None, None)


def _note(claim: Claim | None, booking: Booking | None, defer: Defer | None) -> None:
    if claim is None or claim.job_id is None:
        return
    parts = limits_of(claim.limiter)
    try:
        notes = parts[0].backend.link.notes
    except AttributeError:  # it lives in memory, or a test has put something else in its place
        return
    try:
        notes.take(claim.job_id, _noted(parts, claim, booking, defer))
    except Exception as error:  # noqa: BLE001
        logger.debug("a note of a waiting job is lost: %r", error)


def _noted(parts: tuple[Any, ...], claim: Claim, booking: Booking | None, defer: Defer | None) -> Note:
    lines = [_line(part) for part in parts]
    if booking is None:
        return Note(None, left=lines)
    name, wait = booking.limiter or claim.limiter.name, None if defer is None else defer.wait
    answer = None if defer is None else defer.answer
    if answer is None:
        return Note(name, wait, left=lines)
    which = _waited_for(parts, answer)
    turn = _turn(parts, which, answer)
    if turn is None:
        return Note(parts[which].name, wait, left=lines)
    return Note(parts[which].name, wait, lines[which], turn, lines[:which] + lines[which + 1 :])


def _waited_for(parts: tuple[Any, ...], answer: Answer) -> int:
    """Of several limits, the one with the longest wait."""
    names = [part.name for part in parts]
    return names.index(answer.limiter) if answer.limiter in names else 0


def _turn(parts: tuple[Any, ...], which: int, answer: Answer) -> float | None:
    """The turn there; several limits give one each, but for those that cost nothing."""
    if not isinstance(answer.turn, tuple):
        return answer.turn
    asked = [index for index, part in enumerate(parts) if isinstance(part, Semaphore) or part.cost > 0]
    return answer.turn[asked.index(which)]


def _line(part: Any) -> Line:
    return Line("semaphore" if isinstance(part, Semaphore) else "bucket", part.settings.key)
