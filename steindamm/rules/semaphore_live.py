"""What is changed of a semaphore while it runs: it is closed, or has other slots than the code says."""

from __future__ import annotations

import math

UNSET = -1.0


class SemaphoreLive:
    """What has been changed of a semaphore.

    Parameters:
        reopens: When it opens again; minus infinity where it is open.
        capacity: The overriding number of slots; below 0 where there is none.
        set_at: When that was set.
        note: Who set it, and to what, for people.
    """

    __slots__ = ("capacity", "note", "reopens", "set_at")

    def __init__(self) -> None:
        self.reopens = -math.inf
        self.capacity = UNSET
        self.set_at = 0.0
        self.note = b""

    @property
    def is_overridden(self) -> bool:
        """Whether the number of slots is another than the code says."""
        return self.capacity >= 0

    def is_over(self, now: float) -> bool:
        """Whether all is as the code says."""
        return not self.is_overridden and now >= self.reopens
