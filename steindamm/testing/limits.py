"""What a test is told about the limiters, and what it tells them."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from time import monotonic

from steindamm.checks import checked_seconds


class Limits:
    """What all limiters have given since they were made instant, or strict.

    Attributes:
        taken: Tokens (of a bucket), or slots (of a semaphore), by the limiter's name; what was given back
            without being used is not subtracted.
    """

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self._lock = Lock()

    def took(self, name: str, amount: float) -> None:
        """Count what a limiter gave."""
        with self._lock:
            self.taken[name] += amount  # type: ignore[assignment]


class StrictLimits(Limits):
    """Limits whose time goes on by itself, and faster where the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    def advance(self, seconds: float) -> None:
        """Let so much time pass for all limiters.

        Parameters:
            seconds: Not negative.
        """
        self._ahead += checked_seconds("seconds", seconds)

    def now(self) -> float:
        """Seconds on the limiters' clock."""
        return monotonic() + self._ahead
