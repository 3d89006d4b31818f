"""States by name in this process's memory, without the idle ones.

A full bucket and a free semaphore say nothing that a new one would not, so their states are dropped: each
new name, and now and then any request, looks at the oldest ones and drops those that are idle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from steindamm.rules.bucket import BucketState, BucketTerms, kept_until
from steindamm.rules.semaphore import SemaphoreState, is_idle

State = TypeVar("State")


class States(Generic[State]):
    """States by name, without the idle ones.

    Parameters:
        is_idle: Whether a state (of this name, now) says nothing that a new one would not.
    """

    def __init__(self, is_idle: Callable[[State, float], bool]) -> None:
        self.by_name: dict[str, State] = {}
        self._is_idle = is_idle
        self._oldest: deque[str] = deque()

    def add(self, name: str, state: State, now: float) -> State:
        """Keep a new state; look at more old ones than come new."""
        self.sweep(now, looks=3)
        self.by_name[name] = state
        self._oldest.append(name)
        return state

    def sweep(self, now: float, looks: int) -> None:
        """Look at so many of the oldest and drop those that are idle."""
        for _ in range(min(looks, len(self._oldest))):
            name = self._oldest.popleft()
            if self._is_idle(self.by_name[name], now):
                self.drop(name)
            else:
                self._oldest.append(name)

    def drop(self, name: str) -> None:
        """Forget one."""
        del self.by_name[name]

    def clear(self) -> None:
        """Drop all."""
        for name in tuple(self.by_name):
            self.drop(name)
        self._oldest.clear()


class KeptBucket:
    """A bucket's state with what tells when it may go. A limiter holds on to it as long as its terms are its own."""

    __slots__ = ("state", "terms", "used")

    def __init__(self, terms: BucketTerms, now: float) -> None:
        self.terms = terms
        self.state = BucketState(terms, now)
        self.used = now

    def is_idle(self, now: float) -> bool:
        """Whether it is full again, and unused for as long as it is kept."""
        return now >= self.used + self.terms.keep and now >= kept_until(self.terms, self.state, self.used)


NOT_KEPT = KeptBucket(BucketTerms(0.0, 0.0, 0.0, 0.0), 0.0)
"""What a limiter holds on to that has found nothing: its terms are nobody's."""


class KeptBuckets(States[KeptBucket]):
    """The states of buckets."""

    def __init__(self) -> None:
        super().__init__(KeptBucket.is_idle)

    def drop(self, name: str) -> None:
        """Forget one; limiters that hold on to it let go of it, and of its state."""
        kept = self.by_name[name]
        kept.terms, kept.state = NOT_KEPT.terms, NOT_KEPT.state
        super().drop(name)


NEVER = math.inf
"""When a semaphore's state was last seen that is not kept: nothing that is asked now can be later."""
NO_SLOTS = SemaphoreState()
NO_SLOTS.seen = NEVER
"""What a limiter holds on to that has found nothing."""


class KeptSemaphores(States[SemaphoreState]):
    """The states of semaphores. A limiter holds on to one until it is dropped."""

    def __init__(self) -> None:
        super().__init__(is_idle)

    def drop(self, name: str) -> None:
        """Forget one; limiters that hold on to it find that it takes nobody in."""
        self.by_name[name].seen = NEVER
        super().drop(name)
