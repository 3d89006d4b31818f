"""Keeps threads free while a limiter's server does not answer.

To ask such a server takes as long as its client's timeouts and retries. So once it is slow, or known to be away, one
thread at a time asks it, and the jobs of the others go back to the queue unasked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Decision, decide, silence_of, unanswered
from steindamm.integrations.job_limits import Claim, JobLimit

logger = logging.getLogger("steindamm.dramatiq")

SLOW = 0.5
"""Seconds after which a server that has not answered one thread is asked by no other."""


class Server:
    """A limiter's server, as the threads of one worker know it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._asked_at: dict[int, float] = {}
        self._away: str | None = None

    def begin(self, name: str) -> LimiterUnavailableError | None:
        """This thread is about to ask it for a limiter; why it had better not."""
        now = monotonic()
        with self._lock:
            patience = SLOW if self._away is None else 0.0
            if self._asked_at and now >= min(self._asked_at.values()) + patience:
                return LimiterUnavailableError(name, self._away or "it is slow to answer")
            self._asked_at[get_ident()] = now
            return None

    def end(self) -> None:
        """This thread asks no more, whatever came of it."""
        with self._lock:
            self._asked_at.pop(get_ident(), None)

    def heard(self, silence: LimiterUnavailableError | None) -> None:
        """It gave an answer, or none; the log has both ends of an outage."""
        with self._lock:
            was_away, self._away = self._away is not None, None if silence is None else silence.reason
        if silence is not None and not was_away:
            logger.warning("%s: jobs wait until it is back", silence)
        elif silence is None and was_away:
            logger.warning("a limiter's backend that was unavailable is back")


class Outages:
    """Asks limiters about jobs, and knows the servers, by the link that leads to each."""

    def __init__(self) -> None:
        self._servers: WeakKeyDictionary[Any, Server] = WeakKeyDictionary()
        self._lock = Lock()

    def decide(
        self, limit: JobLimit, claim: Claim, booking: Booking, *, accept: float, wake: Callable[[], None] | None = None
    ) -> Decision:
        """Decide on a job as `decide` does, unless its server is slow or away, and another thread is asking already."""
        link = getattr(claim.limiter.backend, "link", None)
        if link is None:
            return decide(limit, claim, booking, accept=accept, wake=wake)
        server = self._server(link)
        silence = server.begin(claim.limiter.name)
        if silence is not None:
            return unanswered(limit, claim, booking, silence)
        try:
            decision = decide(limit, claim, booking, accept=accept, wake=wake)
        finally:
            server.end()
        server.heard(silence_of(decision))
        return decision

    def _server(self, link: Any) -> Server:
        with self._lock:
            return self._servers.setdefault(link, Server())
