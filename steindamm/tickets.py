"""One asker at a semaphore, from its first request to its release."""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Callable
from itertools import count
from threading import Lock
from time import monotonic

logger = logging.getLogger("steindamm")


class _Process:
    """This process's name on the tickets, and the lock under which they change; a forked child has its own."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self.name = secrets.token_hex(6)
        self.numbers = count(1)
        self.lock = Lock()


PROCESS = _Process()


def _nobody_waits() -> None:
    """What a hand-over does to a ticket on which nobody sleeps."""


class Ticket:
    """Stands for one asker wherever it is known: in the line, as a holder, to the one that renews.

    Its asker, the one that hears of hand-overs and the one that renews may be three threads. Whoever is told
    first that it has a slot makes it a holder; once its asker has gone, nothing does.

    Parameters:
        wake: Called, from any thread, when the ticket is handed a slot.

    Attributes:
        number: The place in line; 0 when it has none.
        fence: The fencing number of its lease; 0 when it has none.
        woken: Whether it was handed its slot by another one's release.
        gone: Whether its asker has given up, or given the slot back.
        lost: Whether its lease ran out before it could be renewed.
        asked_at: When it was made, on this process's monotonic clock, in seconds.
        since: When it got its slot.
        good_until: Until when its lease, or presence, certainly lasts.
        due: When that is to be renewed.
    """

    number = 0.0
    fence = 0
    woken = gone = lost = False
    since = 0.0
    good_until = due = math.inf
    _id = ""

    def __init__(self, wake: Callable[[], object] = _nobody_waits) -> None:
        self.process = PROCESS.name
        self.wake = wake
        self.asked_at = monotonic()

    def __lt__(self, other: Ticket) -> bool:
        return self.id < other.id

    @property
    def id(self) -> str:
        """Unique among all processes."""
        if not self._id:
            self._id = f"{self.process}:{next(PROCESS.numbers)}"
        return self._id

    @property
    def holds(self) -> bool:
        """Whether a slot was given to it."""
        return self.fence > 0

    @property
    def is_ours(self) -> bool:
        """Whether this process asked for it; a forked child must not touch its parent's."""
        return self.process == PROCESS.name

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may have the slot that it was given."""
        return self.lost or not self.is_ours or (not self.gone and monotonic() > self.good_until)

    @property
    def held_for(self) -> float:
        """Microseconds since it got its slot."""
        return (monotonic() - self.since) * 1e6

    def keep(self, asked_at: float, span: float) -> None:
        """What it was given at a request that was made at `asked_at` lasts for so many seconds."""
        self.good_until = asked_at + span
        self.due = asked_at + span / 3

    def stand(self, number: float) -> None:
        """Take a place in the line; one that has been handed a slot meanwhile has left it."""
        with PROCESS.lock:
            if not self.fence and not self.gone:
                self.number = number

    def take(self, fence: float) -> bool:
        """Hold a slot from now on; False where it already does, or has gone."""
        with PROCESS.lock:
            if self.fence or self.gone:
                return False
            self.number = 0.0
            self.since = monotonic()
            self.fence = int(fence)
            return True

    def hand(self, fence: float) -> bool:
        """Hold a slot, and wake the one who waits for it; False where that came too late, or to nobody.

        A process that was stopped for a while may hear of a slot that has long gone to somebody else: its
        next renewal tells it where it stands.
        """
        if monotonic() > self.good_until or not self.take(fence):
            return False
        self.woken = True
        try:
            self.wake()
        except Exception as error:  # noqa: BLE001
            logger.warning("a waiter could not be woken (%s); its slot goes to the next", type(error).__name__)
            self.go()
            self.due = 0.0
            return False
        return True

    def go(self) -> None:
        """Its asker has gone: a slot that is handed to it from now on goes back."""
        with PROCESS.lock:
            self.gone = True
            self.number = 0.0
