"""Those of this process who sleep until their turn at one token bucket.

One that is cancelled gives its turn to the next of them with the same cost, that one gives its own to the
one after it, and so on: they move up, once for all who are cancelled together. The turn that is left over at the end
goes back to the bucket, if nothing was given out after it; if not, the next one of this process that comes before it
has passed takes it.

A bucket may be closed, or its rate may change, while they sleep, and turns move; or its backend may lose its memory,
and turns with it. Each answer of the bucket tells when its clock was last set: where it was set anew, they look how
far their turns are, and are given others for those that are lost. One who is about to start in a process that has not
heard of the bucket for a while looks as well. A bucket that is closed may be opened early by another process: while
it goes by a clock of its own, one of all who sleep here looks now and then.
"""

from __future__ import annotations

import math
import os
from bisect import insort
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import RLock
from typing import ClassVar
from weakref import WeakSet

from steindamm.clock import monotonic
from steindamm.errors import SteindammError
from steindamm.rules.bucket import Decision, Request, Verdict, What
from steindamm.sleepers import AHEAD, AsyncSleeper, Sleeper, SyncSleeper

FRESH = 0.25
"""Seconds for which it counts that nothing has changed."""
NEWS = 1.0
"""Seconds without news after which one of those who sleep at a bucket that is closed, slowed or overridden looks."""


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
        self._looked_at = 0.0
        self._forget()
        self._all.add(self)

    def _forget(self) -> None:
        self._lock = RLock()
        self._sleepers: list[Sleeper] = []
        self._left_over: list[Sleeper] = []
        self._has_gap = False

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
        return min(sleeper.due - ahead - monotonic(), self.news_in())

    def news_in(self) -> float:
        """Seconds until somebody has to look for news; 0 for the one who is to do it now."""
        if not self.changed:
            return math.inf
        now = monotonic()
        left = max(self.heard_at, self._looked_at) + NEWS - now
        if left > 0:
            return left
        self._looked_at = now
        return 0.0

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
            self._move_up()
            return sleeper.turn != turn

    def leave(self, sleeper: Sleeper) -> None:
        """The turn has come."""
        with self._lock:
            self._sleepers.remove(sleeper)

    def let_go(self, sleeper: Sleeper) -> None:
        """Its turn is left over. Those after it move up when left over turns are taken, once for many that go."""
        with self._lock:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
            if not self._has_gap:
                self._drop_passed()
            insort(self._left_over, sleeper)
            self._has_gap = True

    def cancel(self, sleeper: Sleeper) -> None:
        """The same, and those after it move up at once."""
        with self._lock:
            self.let_go(sleeper)
            self._move_up()

    def _move_up(self) -> None:
        """Those who sleep take the earliest of the turns that they and those who left have, each among its like."""
        self._has_gap = False
        left, stay = defaultdict(list), defaultdict(list)
        for sleeper in self._left_over:
            left[sleeper.like].append(sleeper)
        for sleeper in self._sleepers:
            if sleeper.like in left and not sleeper.is_gone:
                stay[sleeper.like].append(sleeper)
        for like, those in stay.items():
            _share_out(those, left[like])
        self._sleepers.sort()
        self._left_over.sort()

    def _drop_passed(self) -> None:
        now = monotonic()
        self._left_over = [left for left in self._left_over if left.due > now]

    def take_left_over(self) -> Sleeper | None:
        """The latest of the turns left over, to be given back; by one caller only."""
        with self._lock:
            if self._has_gap:
                self._move_up()
            return self._left_over.pop() if self._left_over else None

    def keep_left_over(self, sleeper: Sleeper) -> None:
        """It could not be given back: somebody has a turn after it."""
        with self._lock:
            insort(self._left_over, sleeper)


os.register_at_fork(after_in_child=Turns.after_fork)


def _share_out(stay: list[Sleeper], left: list[Sleeper]) -> None:
    """Those who stay take the earliest of all their turns; for those who left, the others are left over."""
    turns = sorted(sleeper.told for sleeper in (*stay, *left))
    for sleeper, earlier in zip(stay, turns, strict=False):
        if sleeper.told != earlier:
            sleeper.told = earlier
            sleeper.moved()
    for sleeper, later in zip(left, turns[len(stay) :], strict=True):
        sleeper.told = later


def sleep_until_turn(
    sleeper: SyncSleeper, turns: Turns, ask: Callable[[Request], Decision], patience: float
) -> Decision | None:
    """Sleep, wherever the turn moves meanwhile.

    Parameters:
        sleeper: One who has joined.
        turns: Those among whom it sleeps.
        ask: Asks the bucket.
        patience: The longest sleep in all, in seconds.

    Returns:
        Where the turn is now, if it has moved out of reach.
    """
    while sleeper.rest(turns):
        try:
            seen = ask(sleeper.look)
        except SteindammError:
            turns.hear_nothing(sleeper)
        else:
            turns.move(sleeper, seen)
            if sleeper.slept > patience:
                return seen
    return None


async def sleep_until_turn_async(
    sleeper: AsyncSleeper, turns: Turns, ask: Callable[[Request], Awaitable[Decision]], patience: float
) -> Decision | None:
    """The same for tasks."""
    while await sleeper.rest(turns):
        try:
            seen = await ask(sleeper.look)
        except SteindammError:
            turns.hear_nothing(sleeper)
        else:
            turns.move(sleeper, seen)
            if sleeper.slept > patience:
                return seen
    return None


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
