"""Backends that do not answer, and what limiters that may do without them know of that.

By choice (`on_unavailable`) a limiter raises, lets everything through, or asks a stand-in: a local limiter. Who
chose not to depend on a backend should not wait for its client's timeouts either. So one that did not answer is
spared for a while, as by the circuit breaker of Nygard (Release It!, 2007): every second one caller looks whether
it is back, and the others do without it meanwhile.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable
from threading import Lock
from typing import Any

from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError, wrong_kind
from steindamm.forks import begin_anew_in_child

logger = logging.getLogger("steindamm")
RAISE, ALLOW = "raise", "allow"
PAUSE = 1.0
"""Seconds until somebody looks whether a backend that did not answer is back."""
COMPLAIN_EVERY = 60.0
"""Seconds between warnings."""
MOST = 10_000
"""Limiters whose outages are remembered."""


def checked_on_unavailable(choice: Any, stand_in: type) -> Any:
    """What a limiter was told to do without its backend; `stand_in` is the kind of limiter that it can ask instead."""
    if isinstance(choice, stand_in) or (isinstance(choice, str) and choice in {RAISE, ALLOW}):
        return choice
    wanted = f'"{RAISE}", "{ALLOW}" or a {stand_in.__name__}'
    if not isinstance(choice, str):
        raise wrong_kind("on_unavailable", wanted, choice)
    raise ValueError(f"on_unavailable must be {wanted}")


class Outage:
    """What this process knows of one limiter's backend that did not answer.

    Parameters:
        name: The limiter.

    Attributes:
        lasts: Whether the backend is spared for now.
        uses: How often the limiter did without it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.begin()
        begin_anew_in_child(self)

    def begin(self) -> None:
        """Nothing is known."""
        self.lasts = False
        self.uses = 0
        self._complaint: Complaint | None = None
        self._next_look = 0.0
        self._changing = Lock()

    def note(self, error: LimiterUnavailableError, instead: str) -> None:
        """It does not answer. The log tells of it at first, and now and then."""
        with self._changing:
            self.lasts = True
            self._next_look = monotonic() + PAUSE
            self._complaint = _complaints[instead]
        self._complaint.make(error, instead)

    def use(self) -> None:
        """The limiter does without it once more."""
        with self._changing:
            self.uses += 1
        logger.debug("limiter %r does without its backend", self.name)

    def may_look(self) -> bool:
        """Whether the caller is to look if it is back; the others do without it meanwhile."""
        with self._changing:
            now = monotonic()
            if now < self._next_look:
                return False
            self._next_look = now + PAUSE
            return True

    def end(self) -> None:
        """It can be asked again."""
        self.lasts = False

    def answered(self) -> None:
        """It has answered what it was asked."""
        complaint, self._complaint = self._complaint, None
        if complaint is not None:
            self.lasts = False
            complaint.end(self)


class Complaint:
    """What the log tells of limiters that do without their backends: of one now and then, for there may be many."""

    def __init__(self) -> None:
        self._next = 0.0
        self._is_made = False

    def make(self, error: LimiterUnavailableError, instead: str) -> None:
        """Tell of an outage, if it is time."""
        now = monotonic()
        if now >= self._next:
            self._next = now + COMPLAIN_EVERY
            self._is_made = True
            logger.warning("%s; %s for now", error, instead)

    def end(self, outage: Outage) -> None:
        """Tell that it is over, if it was told of."""
        if self._is_made:
            self._is_made = False
            self._next = 0.0
            logger.warning("limiter %r: its backend is back; it did without %d times", outage.name, outage.uses)


_complaints: defaultdict[str, Complaint] = defaultdict(Complaint)
"""By what is done instead."""
_outages: dict[Hashable, Outage] = {}


def known_outage(key: Hashable) -> Outage | None:
    """What is known of the backend of a limiter, if it ever did not answer."""
    return _outages.get(key)


def outage_of(key: Hashable, name: str) -> Outage:
    """The same, for one that did not answer just now."""
    outage = _outages.get(key)
    if outage is None:
        while len(_outages) >= MOST:
            _outages.pop(next(iter(_outages)), None)
        outage = _outages.setdefault(key, Outage(name))
    return outage
