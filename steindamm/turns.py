"""Those of this process who sleep until their turn at one token bucket.

One that is cancelled gives its turn to the next of them with the same cost, that one gives its own to the
one after it, and so on. The turn that is left over at the end goes back to the bucket, if nothing was given
out after it; if not, the next one of this process that comes before it has passed takes it.

A bucket may be closed, or its rate may change, while they sleep, and turns move; or its backend may lose its memory,
and turns with it. Each answer of the bucket tells when its clock was last set: where it was set anew, they look how
far their turns are, and are given others for those that are lost. One who is about to start in a process that has not
heard of the bucket for a while looks as well.
"""

from __future__ import annotations

import asyncio
import os
from bisect import insort
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Event, RLock
from time import monotonic
from typing import ClassVar
from weakref import WeakSet

from steindamm.errors import SteindammError
from steindamm.rules.bucket import ENDLESS, Decision, Request, Verdict, What

SECOND = 1e6
DAY = 86_400.0
FRESH = 0.25
"""Seconds for which it counts that nothing has changed."""
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

    def is_like(self, other: Sleeper) -> bool:
        """Whether each could use the other's turn."""
        return self.cost == other.cost and self.is_booked == other.is_booked

    def swap(self, other: Sleeper) -> None:
        """Each takes the other's turn."""
        self.turn, other.turn = other.turn, self.turn
        self.due, other.due = other.due, self.due
        self.changed, other.changed = other.changed, self.changed

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
        self._moved = Event()

    def moved(self) -> None:
        """Wake the thread to look at its new turn."""
        self._moved.set()

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
        self._moved.clear()


class AsyncSleeper(Sleeper):
    """A task."""

    __slots__ = ("_loop", "_moved")

    def __init__(self, decision: Decision, cost: float) -> None:
        super().__init__(decision, cost)
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()

    @property
    def is_gone(self) -> bool:
        """Whether its event loop was closed while it slept."""
        return self._loop.is_closed()

    def moved(self) -> None:
        """Wake the task to look at its new turn."""
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
        self._moved.clear()


class Turns:
    """The sleepers of one bucket, in the order of their turns.

    The lock may be taken again by its holder: a task that was never ended is cancelled by the garbage
    collector, at any moment.

    Parameters:
        heard_at: When this process last heard of the bucket, in seconds on its clock; infinite where it hears of
            each change by itself.
    """

    _all: ClassVar[WeakSet[Turns]] = WeakSet()

    def __init__(self, heard_at: float = 0.0) -> None:
        self.heard_at = heard_at
        self.changed = 0.0
        self._forget()
        self._all.add(self)

    def _forget(self) -> None:
        self._lock = RLock()
        self._sleepers: list[Sleeper] = []
        self._left_over: list[Sleeper] = []

    @classmethod
    def after_fork(cls) -> None:
        """The threads that sleep are the parent's."""
        for turns in tuple(cls._all):
            turns._forget()

    def hear(self, changed: float) -> None:
        """The bucket has answered, and told when its clock was last set."""
        self.heard_at = max(self.heard_at, monotonic())
        if changed != self.changed:
            self.changed = changed
            with self._lock:
                for sleeper in self._sleepers:
                    sleeper.moved()

    def telling(self, requests: list[Request]) -> list[Request]:
        """Requests of which the first tells the last turn outstanding here: the bucket may have been forgotten."""
        last = self._sleepers[-1:]
        if not last or last[0].is_booked or requests[0].what is not What.TAKE:
            return requests
        return [requests[0]._replace(turn=last[0].turn), *requests[1:]]

    def left_to(self, sleeper: Sleeper) -> float:
        """Seconds that it may sleep on; 0 where its turn has come, or must be looked at."""
        if sleeper.changed != self.changed:
            return 0.0
        ahead = AHEAD if sleeper.due - AHEAD > self.heard_at + FRESH else 0.0
        return sleeper.due - ahead - monotonic()

    def is_unsure_of(self, sleeper: Sleeper) -> bool:
        """Whether its turn may have moved since it was told."""
        return sleeper.changed != self.changed or sleeper.due - AHEAD > self.heard_at + FRESH

    def hear_nothing(self, sleeper: Sleeper) -> None:
        """The bucket does not answer: the turn stands as it was told."""
        self.heard_at = monotonic()
        sleeper.changed = self.changed

    def move(self, sleeper: Sleeper, seen: Decision) -> None:
        """Its turn is as far away as was seen."""
        self.hear(seen.changed)
        with self._lock:
            self._sleepers.remove(sleeper)
            sleeper.move(seen)
            insort(self._sleepers, sleeper)

    def join(self, sleeper: Sleeper) -> bool:
        """Sleep among the others; whether it could take a turn left over, so that its own is now to be given back."""
        with self._lock:
            while self._sleepers and self._sleepers[0].is_gone:
                del self._sleepers[0]
            insort(self._sleepers, sleeper)
            if not self._left_over:
                return False
            self._drop_passed()
            turn = sleeper.turn
            for left in self._left_over:
                self._pass_on(left)
            self._left_over.sort()
            return sleeper.turn != turn

    def leave(self, sleeper: Sleeper) -> None:
        """The turn has come."""
        with self._lock:
            self._sleepers.remove(sleeper)

    def cancel(self, sleeper: Sleeper) -> None:
        """Pass the turn on to those after it; the last of their turns is left over."""
        with self._lock:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
            self._pass_on(sleeper)
            self._drop_passed()
            insort(self._left_over, sleeper)

    def _pass_on(self, leaving: Sleeper) -> None:
        """Each that sleeps until a later turn, and costs the same, takes the turn of the one before it."""
        for following in self._sleepers:
            if following.is_like(leaving) and leaving < following and not following.is_gone:
                leaving.swap(following)
                following.moved()
        self._sleepers.sort()

    def _drop_passed(self) -> None:
        now = monotonic()
        self._left_over = [left for left in self._left_over if left.due > now]

    def take_left_over(self) -> Sleeper | None:
        """The latest of the turns left over, to be given back; by one caller only."""
        with self._lock:
            return self._left_over.pop() if self._left_over else None

    def keep_left_over(self, sleeper: Sleeper) -> None:
        """It could not be given back: somebody has a turn after it."""
        with self._lock:
            insort(self._left_over, sleeper)


os.register_at_fork(after_in_child=Turns.after_fork)


def sleep_until_turn(sleeper: SyncSleeper, turns: Turns, ask: Callable[[Request], Decision]) -> None:
    """Sleep, wherever the turn moves meanwhile."""
    while sleeper.rest(turns):
        try:
            seen = ask(sleeper.look)
        except SteindammError:
            turns.hear_nothing(sleeper)
        else:
            turns.move(sleeper, seen)


async def sleep_until_turn_async(
    sleeper: AsyncSleeper, turns: Turns, ask: Callable[[Request], Awaitable[Decision]]
) -> None:
    """The same for tasks."""
    while await sleeper.rest(turns):
        try:
            seen = await ask(sleeper.look)
        except SteindammError:
            turns.hear_nothing(sleeper)
        else:
            turns.move(sleeper, seen)


def give_back_left_over(turns: Turns, ask: Callable[[Request], Decision]) -> None:
    """Give the turns left over back to the bucket; where it does not answer, the turn passes unused."""
    with suppress(SteindammError):
        while left_over := turns.take_left_over():
            if ask(left_over.gift).verdict is not Verdict.GRANTED:
                turns.keep_left_over(left_over)
                return


async def give_back_left_over_async(turns: Turns, ask: Callable[[Request], Awaitable[Decision]]) -> None:
    """The same for tasks."""
    with suppress(SteindammError):
        while left_over := turns.take_left_over():
            if (await ask(left_over.gift)).verdict is not Verdict.GRANTED:
                turns.keep_left_over(left_over)
                return
