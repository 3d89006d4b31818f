"""How far a run has come."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from steindamm.demo.calls import Call
from steindamm.demo.figures import rate_now
from steindamm.demo.plan import Plan

WINDOW_SECONDS = 1.0
WINDOW_CALLS = 10


@dataclass
class Progress:
    """What was seen so far, of the queue and of the API.

    Parameters:
        plan: What is to be done.
        sent: Jobs put into the queue.
        calls: The API's log.
        now: The API's clock when it was read.
        results: What finished jobs returned; None for one that failed.
    """

    plan: Plan
    sent: int = 0
    calls: list[Call] = field(default_factory=list)
    now: float = 0.0
    results: list[int | None] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Jobs whose result is there."""
        return len(self.results)

    @property
    def running(self) -> int:
        """Jobs that called the API and whose result isn't there yet."""
        return max(0, len(self.calls) - self.done)

    @property
    def waiting(self) -> int:
        """Jobs in the queue, or held back by a worker."""
        return max(0, self.sent - self.done - self.running)

    @property
    def refused(self) -> int:
        """Calls answered 429."""
        return sum(not call.allowed for call in self.calls)

    @property
    def rate_now(self) -> float:
        """Calls a second in the last second, or in the time of ten calls at the limit if that is longer."""
        return rate_now(self.calls, self.now, max(WINDOW_SECONDS, WINDOW_CALLS * self.plan.limit.spacing))

    @property
    def failed(self) -> int:
        """Jobs that ended with an error of their own."""
        return self.results.count(None)

    @property
    def repeated(self) -> int:
        """Calls beyond the first of each job."""
        return sum(times - 1 for times in Counter(call.job for call in self.calls).values())

    @property
    def missing(self) -> int:
        """Jobs without a result."""
        return self.plan.jobs - self.done

    @property
    def complete(self) -> bool:
        """Whether nothing more is to come."""
        return not self.missing

    @property
    def good(self) -> bool:
        """Whether it went as it should: each job done, once, and under steindamm no call refused."""
        faults = self.missing + self.failed + self.repeated
        return not faults and not (self.plan.throttled and self.refused)
