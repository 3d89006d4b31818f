"""What the API allows. Written apart from steindamm's own buckets, so that it can judge them."""

from __future__ import annotations


class Allowance:
    """So many calls a second, and so many at once after a pause; no tolerance beyond.

    In any window of ``w`` seconds it allows at most ``burst + per_second * w`` calls.

    Example:
        >>> allowance = Allowance(per_second=50, burst=2)
        >>> [allowance.allows(at) for at in (0.0, 0.0, 0.0, 0.02, 0.03)]
        [True, True, False, True, False]

    Parameters:
        per_second: Calls that come back in a second.
        burst: Calls that it holds at most, and at the start.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Whether a call that arrives now, in seconds, is within the limit; if so, it is counted."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
