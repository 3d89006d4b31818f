"""One caller on its way through several limits."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from steindamm.checks import LONGEST_TIME
from steindamm.clock import monotonic
from steindamm.errors import SteindammError
from steindamm.rules import bucket
from steindamm.rules.all_of import Ask, Decision, Request, Verdict, What
from steindamm.rules.semaphore import Stay
from steindamm.semaphore import Semaphore
from steindamm.sleepers import SECOND, AsyncSleeper, Sleeper, SyncSleeper
from steindamm.tickets import Ticket
from steindamm.turns import Turns

UNUSED = -1.0
"""In place of the time for which a slot was held, where it was not used."""
LITTLE = 0.05
"""Seconds: for a start that is so near, tokens are taken ahead, rather than that the caller comes back for it."""


class Visit:
    """What one caller has booked, waits for and holds, from its first request to its start.

    Parameters:
        limiters: The limits that it must pass.
        max_sleep: Seconds that it waits at most; 0 for any time.
        wake: Called, from any thread, when it is handed a slot.
        turns: What it brings along of each: a turn, an arrival number, or 0.
        job: For which job it asks, for people.

    Attributes:
        tickets: By which it is known at the semaphores, by index.
        is_granted: Whether it may start.
        lapsed: Called when a place in line has lapsed, see `Ticket`.
    """

    def __init__(
        self,
        limiters: Sequence[Any],
        max_sleep: float = 0.0,
        wake: Callable[[], object] | None = None,
        turns: Iterable[float] | None = None,
        job: str | None = None,
    ) -> None:
        self.limiters = limiters
        self.turns = [0.0] * len(limiters) if turns is None else list(turns)
        self.tickets: dict[int, Ticket] = {}
        self.is_granted = False
        self.lapsed: Callable[[Ticket], object] | None = None
        self._wake = wake
        self._job = job
        self._began = monotonic()
        self._ends = self._began + max_sleep if max_sleep else math.inf
        self._has_waited = False

    @property
    def left(self) -> float:
        """Seconds that it may still wait."""
        return max(0.0, self._ends - monotonic())

    @property
    def patience(self) -> float | None:
        """The same, as timeouts are told: None for any time."""
        return None if self._ends == math.inf else self.left

    @property
    def waited(self) -> float:
        """Seconds since it began, where it did not start at once."""
        return monotonic() - self._began if self._has_waited else 0.0

    def patient_request(self) -> Request:
        """What it asks when it can wait for a turn, or in line."""
        left = min(self.left, LONGEST_TIME)
        return self.request(min(LITTLE, left), left, Stay.LISTENING)

    def request(self, accept: float, horizon: float, stay: Stay, slack: float = 0.0) -> Request:
        """What it asks, with these waits in seconds."""
        asks = [self._ask(index, limiter) for index, limiter in enumerate(self.limiters)]
        return Request(tuple(asks), accept * SECOND, horizon * SECOND, stay, slack * SECOND)

    def _ask(self, index: int, limiter: Any) -> Ask:
        if not isinstance(limiter, Semaphore):
            return Ask(limiter.cost, self.turns[index])
        ticket = self.tickets.get(index)
        if ticket is None:
            ticket = self.tickets[index] = Ticket(limiter.name, self._wake, self._job)
            ticket.lapsed = self.lapsed
        return Ask(0.0, self.turns[index], ticket)

    def note(self, decision: Decision) -> None:
        """Take note of what was decided: a ticket that was given nothing is worth nothing any more."""
        verdict, which, wait, given, _ = decision
        self.is_granted = verdict is Verdict.GRANTED
        self._has_waited |= wait > 0
        for index in [index for index in self.tickets if not given[index]]:
            del self.tickets[index]
        if self.is_granted:
            self.turns = list(given)
        elif given[which]:
            self.turns[which] = given[which]

    def booked(self, decision: Decision) -> bucket.Decision:
        """What it waits for, as the bucket alone would have told it."""
        which = decision.which
        return bucket.Decision(bucket.Verdict.BOOKED, decision.wait, self.turns[which], decision.changed[which])

    def keep(self, settled: Iterable[bool]) -> None:
        """Give back no tokens of the limits that were settled, in the order of `limiters`."""
        self.turns = [0.0 if is_settled else turn for turn, is_settled in zip(self.turns, settled, strict=False)]

    def gift(self, *, used: bool) -> Request | None:
        """What gives back all that it has: its slots and, where it did not use them, its tokens or turns."""
        asks = [self._gift(index, limiter, used=used) for index, limiter in enumerate(self.limiters)]
        self.turns = [0.0] * len(asks)
        if not any(ask.turn > 0 or ask.asker is not None for ask in asks):
            return None
        return Request(tuple(asks), what=What.GIVE_BACK if self.is_granted else What.GIVE_BOOKINGS_BACK)

    def _gift(self, index: int, limiter: Any, *, used: bool) -> Ask:
        if not isinstance(limiter, Semaphore):
            return Ask(limiter.cost, 0.0 if used else self.turns[index])
        ticket = self.tickets.get(index)
        if ticket is None or ticket.gone or not ticket.is_ours:
            return Ask(0.0, UNUSED)
        return Ask(0.0, ticket.held_for if used and ticket.fence else UNUSED, ticket)

    def places(self) -> Iterator[tuple[Any, Ticket]]:
        """The slots and places in line that it has: at which semaphore, by which ticket."""
        for index, ticket in self.tickets.items():
            if not ticket.gone:
                yield self.limiters[index], ticket


class Booked(Sleeper):
    """One who sleeps until a turn that was booked: the line alone gets it back, the pace was not charged."""

    __slots__ = ()

    @property
    def gift(self) -> bucket.Request:
        """The request that gives its turn back."""
        return bucket.Request(bucket.What.GIVE_BOOKING_BACK, self.cost, turn=self.turn)

    def left_among(self, turns: Turns) -> float:
        """Seconds until it is worth asking again: at its turn, or now, where the bucket's clock was set anew."""
        return self.due - monotonic() if self.changed == turns.changed else 0.0


class SyncBooked(Booked, SyncSleeper):
    """A thread."""

    __slots__ = ()

    def sleep_among(self, turns: Turns, ask: Callable[[bucket.Request], bucket.Decision]) -> None:
        """Until it is worth asking again. It may be the one who looks for news; a bucket that is silent has none."""
        while (left := self.left_among(turns)) > 0:
            if (quiet := turns.news_in()) > 0:
                self._wait(min(left, quiet))
                continue
            with suppress(SteindammError):
                ask(self.look)


class AsyncBooked(Booked, AsyncSleeper):
    """A task."""

    __slots__ = ()

    async def sleep_among(self, turns: Turns, ask: Callable[[bucket.Request], Awaitable[bucket.Decision]]) -> None:
        """Until it is worth asking again. It may be the one who looks for news; a bucket that is silent has none."""
        while (left := self.left_among(turns)) > 0:
            if (quiet := turns.news_in()) > 0:
                await self._wait(min(left, quiet))
                continue
            with suppress(SteindammError):
                await ask(self.look)
