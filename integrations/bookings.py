"""What a waiting job carries with it: in a header of its message, or under a key of its own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from steindamm.joining import MOST

HEADER = "steindamm"
MOST_DEFERRALS = 1_000_000

Turn: TypeAlias = "float | tuple[float | None, ...]"
"""What a limiter gave; of several at once, what each gave that gave one."""


class Booking(NamedTuple):
    """A job's place in the line, as plain data.

    It is read from what strangers may have written. A forged one can gain a place in the line, never a token:
    the limiter's pace holds for all.

    Parameters:
        limiter: The name of the limiter that gave the turn.
        turn: What to come back with: a turn of a bucket, or an arrival number at a semaphore; of several limits
            at once, one of each that gave one.
        since: When the job was deferred first, in Unix seconds.
        until: Until when there is no use in asking, in Unix seconds; where a queue delivers early, on purpose.
        deferrals: How often it was deferred.
    """

    limiter: str = ""
    turn: Turn | None = None
    since: float | None = None
    until: float | None = None
    deferrals: int = 0

    @classmethod
    def read(cls, written: object) -> Booking:
        """A booking from what stands in a header; what makes no sense in it is left out."""
        if not isinstance(written, dict):
            return cls()
        limiter, deferrals = written.get("limiter"), written.get("deferrals")
        return cls(
            limiter if isinstance(limiter, str) else "",
            _turn(written.get("turn")),
            _moment(written.get("since")),
            _moment(written.get("until")),
            min(deferrals, MOST_DEFERRALS) if type(deferrals) is int and deferrals > 0 else 0,
        )

    def written(self) -> dict[str, Any]:
        """The booking as JSON can hold it."""
        return self._asdict()

    def turn_at(self, limiter: str) -> Turn | None:
        """The turn to come back with, if this limiter gave it."""
        return self.turn if self.limiter == limiter else None

    @property
    def place(self) -> float:
        """By which those who wait are put in order: the turn, of several the last."""
        turns = self.turn if isinstance(self.turn, tuple) else (self.turn,)
        return max((turn for turn in turns if turn is not None), default=0.0)

    def deferred(self, limiter: str, turn: Turn | None, now: float) -> Booking:
        """The booking after one more deferral, at `now` in Unix seconds."""
        return Booking(limiter, turn, now if self.since is None else self.since, None, self.deferrals + 1)

    def left(self, now: float) -> float:
        """Seconds for which there is no use in asking."""
        return 0.0 if self.until is None else self.until - now

    def waited(self, now: float) -> float:
        """Seconds since the first deferral."""
        return 0.0 if self.since is None else max(0.0, now - self.since)


NO_BOOKING = Booking()
"""That of a job which nobody has deferred."""


def _turn(value: object) -> Turn | None:
    if isinstance(value, (list, tuple)):
        return tuple(_moment(each) for each in value) if len(value) <= MOST else None
    return _moment(value)


def _moment(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        moment = float(value)
    except OverflowError:
        return None
    return moment if math.isfinite(moment) and moment >= 0 else None
