"""What one demo is to do, and how its numbers follow from the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steindamm.rate import Rate

BURST_SECONDS = 0.2
LEAST_BURST = 2
UNITS = {1.0: "s", 60.0: "m", 3_600.0: "h", 86_400.0: "d"}


@dataclass(frozen=True)
class Plan:
    """One run of the demo.

    Parameters:
        queue: Whose workers run the jobs.
        jobs: How many are sent.
        limit: What the API allows.
        workers: How many worker processes there are.
        throttled: Whether steindamm holds the jobs to the limit.
    """

    queue: str
    jobs: int
    limit: Rate
    workers: int
    throttled: bool

    @property
    def burst(self) -> int:
        """Calls that the API takes at once.

        The limiter spaces the starts evenly (its capacity is 1) by the clock of its server; from there a
        job has a way of some milliseconds to go, now longer, now shorter, so calls arrive bunched up.
        The API bears what bunches up within a fifth of a second, and at least two calls.
        """
        return max(LEAST_BURST, math.ceil(self.limit.amount / self.limit.period * BURST_SECONDS))

    @property
    def seconds(self) -> float:
        """The time from the first start to the last at exactly the limit."""
        return (self.jobs - 1) * self.limit.spacing

    @property
    def limit_text(self) -> str:
        """The limit as people say it."""
        return self.rate_text(self.limit.amount / self.limit.period)

    def rate_text(self, per_second: float, digits: int | None = None) -> str:
        """A rate in the limit's own unit."""
        amount = per_second * self.limit.period
        number = f"{amount:g}" if digits is None else f"{amount:.{digits}f}"
        return f"{number}/{UNITS.get(self.limit.period) or f'{self.limit.period:g}s'}"
