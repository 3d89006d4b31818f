"""Those who sleep until their turn at a token bucket: threads and tasks. `steindamm.turns` has them in their order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from steindamm.bell import Bell
from steindamm.clock import monotonic
from steindamm.rules.bucket import ENDLESS, Decision, Request, Verdict, What

if TYPE_CHECKING:
    from steindamm.turns import Turns

SECOND = 1e6
DAY = 86_400.0
AHEAD = 0.05
"""Seconds before its turn at which a sleeper looks, so that it starts in time."""
OVERSLEPT = 0.5
"""Seconds after its turn at which a sleeper may not start any more without asking again."""


class Sleeper:
    """One who has a turn and sleeps until then.

    Attributes:
        turn: The moment, in microseconds on the bucket's clock.
        due: The same moment in seconds on this process's clock.
        cost: Tokens that the turn stands for.
        changed: When the bucket's clock was last set before this was told.
        is_booked: Whether it comes back at its turn, as jobs do.
    """

    __slots__ = ("_since", "changed", "cost", "due", "is_booked", "turn")

    def __init__(self, decision: Decision, cost: float) -> None:
        self.turn = decision.turn
        self._since = monotonic()
        self.due = self._since + decision.wait / SECOND
        self.cost = cost
        self.changed = decision.changed
        self.is_booked = decision.verdict is Verdict.BOOKED

    def __lt__(self, other: Sleeper) -> bool:
        return self.turn < other.turn

    @property
    def slept(self) -> float:
        """Seconds from asking to the turn that it had in the end."""
        return max(0.0, self.due - self._since)

    @property
    def comes_back(self) -> bool:
        """Whether it has to ask again at its turn.

        One that wakes long after its turn does so as well: its process stood still, and all who slept in it would
        start at once.
        """
        return self.is_booked or monotonic() > self.due + OVERSLEPT

    @property
    def gift(self) -> Request:
        """The request that gives its turn back."""
        what = What.GIVE_BOOKING_BACK if self.is_booked else What.GIVE_BACK
        return Request(what, self.cost, turn=self.turn)

    @property
    def look(self) -> Request:
        """The request that tells how far away its turn is, or gives it another for one that the bucket has lost.

        A turn that is due may be one of a bucket that has just ended to go by a clock of its own, and is not lost.
        """
        stands = self.is_booked or (self.changed and self.due < monotonic() + AHEAD / 2)
        return Request(What.LOOK, self.cost, ENDLESS if stands else self.changed, turn=self.turn)

    def move(self, seen: Decision) -> None:
        """Take note of how far away its turn is, where that may have changed, or of the one given for it."""
        is_another = seen.verdict is Verdict.GRANTED
        if is_another:
            self.turn = seen.turn
        if is_another or seen.changed != self.changed:
            self.changed = seen.changed
            self.due = monotonic() + seen.wait / SECOND

    @property
    def like(self) -> tuple[float, bool]:
        """What it has in common with those who could use its turn."""
        return self.cost, self.is_booked

    @property
    def told(self) -> tuple[float, float, float]:
        """What it was told of its turn."""
        return self.turn, self.due, self.changed

    @told.setter
    def told(self, told: tuple[float, float, float]) -> None:
        self.turn, self.due, self.changed = told

    @property
    def is_gone(self) -> bool:
        """Whether it will never wake."""
        return False

    def moved(self) -> None:
        """Its turn has changed; called from any thread."""


class SyncSleeper(Sleeper):
    """A thread."""

    __slots__ = ("_moved",)

    def __init__(self, decision: Decision, cost: float) -> None:
        super().__init__(decision, cost)
        self._moved = Bell()

    def moved(self) -> None:
        """Wake the thread to look at its new turn."""
        self._moved.ring()

    def sleep(self) -> None:
        """Until the turn."""
        while (left := self.due - monotonic()) > 0:
            self._wait(left)

    def rest(self, turns: Turns) -> bool:
        """Sleep until the turn, or until it must be looked at; whether it must."""
        while (left := turns.left_to(self)) > 0:
            self._wait(left)
        return turns.is_unsure_of(self)

    def _wait(self, seconds: float) -> None:
        self._moved.wait(min(seconds, DAY))


class AsyncSleeper(Sleeper):
    """A task."""

    __slots__ = ("_is_called", "_loop", "_moved")

    def __init__(self, decision: Decision, cost: float) -> None:
        super().__init__(decision, cost)
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._is_called = False

    @property
    def is_gone(self) -> bool:
        """Whether its event loop was closed while it slept."""
        return self._loop.is_closed()

    def moved(self) -> None:
        """Wake the task to look at its new turn, by one call however often it moves until then."""
        if self._is_called:
            return
        self._is_called = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._moved.set)

    async def sleep(self) -> None:
        """Until the turn."""
        while (left := self.due - monotonic()) > 0:
            await self._wait(left)

    async def rest(self, turns: Turns) -> bool:
        """Sleep until the turn, or until it must be looked at; whether it must."""
        while (left := turns.left_to(self)) > 0:
            await self._wait(left)
        return turns.is_unsure_of(self)

    async def _wait(self, seconds: float) -> None:
        timer = self._loop.call_later(min(seconds, DAY), self._moved.set)
        try:
            await self._moved.wait()
        finally:
            timer.cancel()
        self._is_called = False
        self._moved.clear()
