"""What a waiting job carries with it: in a header of its message, or under a key of its own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

HEADER = "steindamm"
MOST_DEFERRALS = 1_000_000


class Booking(NamedTuple):
    """A job's place in the line, as plain data.

    It is read from what strangers may have written. A forged one can gain a place in the line, never a token:
    the limiter's pace holds for all.

    Parameters:
        limiter: The name of the limiter that gave the turn.
        turn: What to come back with: a turn of a bucket, or an arrival number at a semaphore.
        since: When the job was deferred first, in Unix seconds.
        until: Until when there is no use in asking, in Unix seconds; where a queue delivers early, on purpose.
        deferrals: How often it was deferred.
    """

    limiter: str = ""
    turn: float | None = None
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
            _moment(written.get("turn")),
            _moment(written.get("since")),
            _moment(written.get("until")),
            min(deferrals, MOST_DEFERRALS) if type(deferrals) is int and deferrals > 0 else 0,
        )

    def written(self) -> dict[str, Any]:
        """The booking as JSON can hold it."""
        return self._asdict()

    def turn_at(self, limiter: str) -> float | None:
        """The turn to come back with, if this limiter gave it."""
        return self.turn if self.limiter == limiter else None

    def deferred(self, limiter: str, turn: float | None, now: float) -> Booking:
        """The booking after one more deferral, at `now` in Unix seconds."""
        return Booking(limiter, turn, now if self.since is None else self.since, None, self.deferrals + 1)

    def left(self, now: float) -> float:
        """Seconds for which there is no use in asking."""
        return 0.0 if self.until is None else self.until - now

    def waited(self, now: float) -> float:
        """Seconds since the first deferral."""
        return 0.0 if self.since is None else max(0.0, now - self.since)


def _moment(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        moment = float(value)
    except OverflowError:
        return None
    return moment if math.isfinite(moment) and moment >= 0 else None
