"""One asker at a semaphore, from its first request to its release."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from itertools import count
from time import monotonic


class _Process:
    """This process's name on the tickets; a forked child gets one of its own."""

    def __init__(self) -> None:
        self.rename()
        os.register_at_fork(after_in_child=self.rename)

    def rename(self) -> None:
        self.name = secrets.token_hex(6)
        self.numbers = count(1)


PROCESS = _Process()


def _nobody_waits() -> None:
    """What a hand-over does to a ticket on which nobody sleeps."""


class Ticket:
    """Stands for one asker wherever it is known: in the line, as a holder, to the one that renews.

    Parameters:
        wake: Called, from any thread, when the ticket is handed a slot.

    Attributes:
        id: Unique among all processes.
        number: The place in line; 0 when it has none.
        fence: The fencing number of its lease; 0 when it has none.
        lost: Whether its lease ran out before it could be renewed.
        good_until: Until when its lease, or presence, certainly lasts, on this process's monotonic clock.
    """

    __slots__ = ("fence", "good_until", "id", "lost", "number", "process", "since", "wake")

    def __init__(self, wake: Callable[[], None] = _nobody_waits) -> None:
        self.process = PROCESS.name
        self.id = f"{self.process}:{next(PROCESS.numbers)}"
        self.wake = wake
        self.number = 0.0
        self.fence = 0
        self.lost = False
        self.since = 0.0
        self.good_until = float("inf")

    def __lt__(self, other: Ticket) -> bool:
        return self.id < other.id

    @property
    def holds(self) -> bool:
        """Whether a slot was given to it."""
        return self.fence > 0

    def stand(self, number: float) -> None:
        """Take a place in the line; one that has been handed a slot meanwhile has left it."""
        if not self.fence:
            self.number = number

    def hand(self, fence: float) -> None:
        """Hold a slot from now on."""
        if self.fence:
            return
        self.fence = int(fence)
        self.number = 0.0
        self.since = monotonic()
        self.wake()

    @property
    def held_for(self) -> float:
        """Microseconds since it got its slot."""
        return (monotonic() - self.since) * 1e6

    @property
    def is_ours(self) -> bool:
        """Whether this process asked for it; a forked child must not touch its parent's."""
        return self.process == PROCESS.name
