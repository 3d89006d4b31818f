"""Those of this process who sleep until their turn at one token bucket.

One that is cancelled gives its turn to the next of them with the same cost, that one gives its own to the
one after it, and so on. The turn that is left over at the end goes back to the bucket, if nothing was given
out after it.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from threading import Event, Lock
from time import monotonic

from steindamm.rules.bucket import Decision, Request, What

SECOND = 1e6


class Sleeper:
    """One who has a turn and sleeps until then.

    Attributes:
        turn: The moment, in microseconds on the backend's clock.
        due: The same moment in seconds on this process's clock.
        cost: Tokens that the turn stands for.
    """

    __slots__ = ("cost", "due", "turn")

    def __init__(self, decision: Decision, cost: float) -> None:
        self.turn = decision.turn
        self.due = monotonic() + decision.wait / SECOND
        self.cost = cost

    def __lt__(self, other: Sleeper) -> bool:
        return self.turn < other.turn

    @property
    def gift(self) -> Request:
        """The request that gives its turn back."""
        return Request(What.GIVE_BACK, self.cost, turn=self.turn)

    def moved(self) -> None:
        """Its turn has changed; called from any thread."""


class SyncSleeper(Sleeper):
    """A thread."""

    __slots__ = ("_moved",)

    def __init__(self, decision: Decision, cost: float) -> None:
        super().__init__(decision, cost)
        self._moved = Event()

    def moved(self) -> None:
        """Wake the thread to look at its new turn."""
        self._moved.set()

    def sleep(self) -> None:
        """Until the turn."""
        while (left := self.due - monotonic()) > 0:
            self._moved.wait(left)
            self._moved.clear()


class AsyncSleeper(Sleeper):
    """A task."""

    __slots__ = ("_loop", "_moved")

    def __init__(self, decision: Decision, cost: float) -> None:
        super().__init__(decision, cost)
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()

    def moved(self) -> None:
        """Wake the task to look at its new turn."""
        self._loop.call_soon_threadsafe(self._moved.set)

    async def sleep(self) -> None:
        """Until the turn."""
        while (left := self.due - monotonic()) > 0:
            timer = self._loop.call_later(left, self._moved.set)
            try:
                await self._moved.wait()
            finally:
                timer.cancel()
            self._moved.clear()


class Turns:
    """The sleepers of one bucket, in the order of their turns."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sleepers: list[Sleeper] = []
        self._left_over: list[Sleeper] = []

    def join(self, sleeper: Sleeper) -> None:
        """Sleep among the others."""
        with self._lock:
            insort(self._sleepers, sleeper)

    def leave(self, sleeper: Sleeper) -> None:
        """The turn has come."""
        with self._lock:
            self._sleepers.remove(sleeper)

    def cancel(self, sleeper: Sleeper) -> None:
        """Pass the turn on to those after it; the last of their turns is left over."""
        with self._lock:
            at = self._sleepers.index(sleeper)
            for following in self._sleepers[at + 1 :]:
                if following.cost == sleeper.cost:
                    sleeper.turn, following.turn = following.turn, sleeper.turn
                    sleeper.due, following.due = following.due, sleeper.due
                    following.moved()
            del self._sleepers[at]
            self._sleepers.sort()
            now = monotonic()
            self._left_over = [left for left in self._left_over if left.due > now]
            insort(self._left_over, sleeper)

    def take_left_over(self) -> Sleeper | None:
        """The latest of the turns left over, to be given back; by one caller only."""
        with self._lock:
            return self._left_over.pop() if self._left_over else None

    def keep_left_over(self, sleeper: Sleeper) -> None:
        """It could not be given back: somebody has a turn after it."""
        with self._lock:
            insort(self._left_over, sleeper)
