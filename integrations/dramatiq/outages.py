"""Keeps threads free while a limiter's server does not answer.

To ask such a server takes as long as its client's timeouts and retries. So one thread at a time asks it, and
the jobs of the others go back to the queue unasked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from steindamm.errors import LimiterUnavailableError
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Decision, Unavailable, unanswered
from steindamm.integrations.job_limits import Claim, JobLimit

logger = logging.getLogger("steindamm.dramatiq")

Question = Callable[[JobLimit, Claim, Booking], Decision]


class Outage:
    """A server that did not answer when it was last asked.

    Parameters:
        error: What came instead.
    """

    def __init__(self, error: LimiterUnavailableError) -> None:
        self.error = error
        self.asking = Lock()


class Outages:
    """The servers that do not answer, by the link that leads to each."""

    def __init__(self) -> None:
        self._outages: WeakKeyDictionary[Any, Outage] = WeakKeyDictionary()

    def ask(self, question: Question, limit: JobLimit, claim: Claim, booking: Booking) -> Decision:
        """Ask about a job, unless there is an outage and another thread is asking already."""
        link = getattr(claim.limiter.backend, "link", None)
        if link is None:
            return question(limit, claim, booking)
        outage = self._outages.get(link)
        if outage is None:
            return self._noted(link, question(limit, claim, booking))
        if not outage.asking.acquire(blocking=False):
            return unanswered(limit, claim, booking, outage.error)
        try:
            return self._noted(link, question(limit, claim, booking))
        finally:
            outage.asking.release()

    def _noted(self, link: Any, decision: Decision) -> Decision:
        if isinstance(decision, Unavailable) and decision.error is not None:
            if link not in self._outages:
                self._outages[link] = Outage(decision.error)
                logger.warning("%s: jobs wait until it is back", decision.error)
        elif self._outages.pop(link, None) is not None:
            logger.warning("a limiter's backend that was unavailable is back")
        return decision
