"""Renews what this process holds or waits for, each ticket every third of what it lasts.

One thread serves all sync semaphores of a client, one task a loop all async ones: a server that does not
answer keeps no lease at another from being renewed. What nobody uses any more and could not be given back at
once is given back here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from logging import DEBUG, ERROR
from threading import RLock, Thread
from typing import Generic, Protocol, TypeVar

from steindamm.bell import Bell
from steindamm.clock import monotonic
from steindamm.errors import SteindammError
from steindamm.forks import begin_anew_in_child
from steindamm.loops import must_end
from steindamm.tickets import Ticket

logger = logging.getLogger("steindamm")
AGAIN = 0.25
"""Seconds until the next try where the backend did not answer."""
EARLY = 0.05
"""Seconds that a ticket may be renewed early, together with another."""
IDLE = 30.0
"""Seconds without a ticket after which the thread ends."""
MOST = 10_000
"""Tickets beyond which nothing more is given back here: what is left comes back when its lease ends."""


class SyncRenewing(Protocol):
    """A semaphore that renews tickets, and gives back those that are gone."""

    name: str

    def renew(self, tickets: list[Ticket]) -> None: ...  # noqa: D102


class AsyncRenewing(Protocol):
    """The same for tasks."""

    name: str

    async def renew(self, tickets: list[Ticket]) -> None: ...  # noqa: D102


Renewing = TypeVar("Renewing", SyncRenewing, AsyncRenewing)


class Watched(Generic[Renewing]):
    """The tickets that are renewed, each by its semaphore; the ticket knows when it is due."""

    def __init__(self) -> None:
        self._semaphores: dict[Ticket, Renewing] = {}
        self._hurried_at = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._semaphores)

    def add(self, ticket: Ticket, semaphore: Renewing) -> None:
        """Renew the ticket from now on, or give it back, if it is gone."""
        if len(self._semaphores) < MOST or not ticket.gone:
            self._semaphores[ticket] = semaphore

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        self._semaphores.pop(ticket, None)

    def next_due(self) -> float:
        """When the first of them is due."""
        return min((ticket.due for ticket in self._semaphores), default=float("inf"))

    def due(self) -> dict[Renewing, list[Ticket]]:
        """Those that are due now, by semaphore."""
        soon = monotonic() + EARLY
        groups: defaultdict[Renewing, list[Ticket]] = defaultdict(list)
        for ticket, semaphore in self._semaphores.items():
            if ticket.due <= soon:
                groups[semaphore].append(ticket)
        return groups

    def failed(self, semaphore: Renewing, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Try again soon; returns those whose places in line have lapsed.

        A holder whose lease may be over is told; what nobody uses has then come back by itself.
        """
        lapsed = []
        now = monotonic()
        for ticket in tickets:
            ticket.due = now + AGAIN
            if now <= ticket.good_until:
                continue
            if ticket.gone:
                self.remove(ticket)
            elif ticket.fence:
                say_lost(semaphore.name, ticket)
            else:
                lapsed.append(ticket)
        return lapsed

    def hurry(self) -> None:
        """Those who wait are due now: a hand-over may have been missed."""
        self._hurried_at = monotonic()
        for ticket in self._semaphores:
            if not ticket.fence:
                ticket.due = 0.0

    def catch_up(self, ticket: Ticket, asked_at: float) -> bool:
        """One that waits is due now if the others were hurried while its answer was under way; whether it is."""
        is_overtaken = asked_at < self._hurried_at
        if is_overtaken:
            ticket.due = 0.0
        return is_overtaken


def say_lost(name: str, ticket: Ticket) -> None:
    """Tell a holder, and the log, that somebody else may have its slot."""
    if not ticket.over:
        ticket.over = True
        logger.warning("limiter %r: the lease of slot %s ran out before it could be renewed", name, ticket.id)


def say_not_renewed(name: str, error: Exception) -> None:
    """It is tried again; what that is too late for is told of then. An error that is no outage is a defect."""
    defect = not isinstance(error, SteindammError)
    logger.log(ERROR if defect else DEBUG, "limiter %r: nothing is renewed for now", name, exc_info=error)


class SyncWatch:
    """The thread that renews; it starts when it is first needed, and ends when it was not for a while."""

    def __init__(self) -> None:
        self.begin()
        begin_anew_in_child(self)

    def begin(self) -> None:
        """Watch over nothing: what is renewed by the parent is none of its child's business."""
        self._lock = RLock()
        self._bell = Bell()
        self._watched: Watched[SyncRenewing] = Watched()
        self._thread: Thread | None = None
        self._wakes_at = 0.0

    def add(self, ticket: Ticket, semaphore: SyncRenewing) -> None:
        """Renew the ticket from now on."""
        with self._lock:
            self._watched.add(ticket, semaphore)
            if self._thread is None:
                thread = Thread(target=self._run, name="steindamm-leases", daemon=True)
                thread.start()
                self._thread = thread
            elif ticket.due < self._wakes_at:
                self._wakes_at = ticket.due
                self._bell.ring()

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        with self._lock:
            self._watched.remove(ticket)

    def hurry(self) -> None:
        """Renew at once those who wait."""
        with self._lock:
            self._watched.hurry()
            self._bell.ring()

    def catch_up(self, ticket: Ticket, asked_at: float) -> None:
        """Renew at once one that waits, where it was asked for its place before those who wait were hurried."""
        with self._lock:
            if self._watched.catch_up(ticket, asked_at):
                self._bell.ring()

    def _run(self) -> None:
        while (groups := self._next()) is not None:
            for semaphore, tickets in groups.items():
                self._renew(semaphore, tickets)

    def _next(self) -> dict[SyncRenewing, list[Ticket]] | None:
        """Those that are due, when they are; None when there was nothing to renew for long."""
        with self._lock:
            now = monotonic()
            called_for = self._wakes_at if self._wakes_at > now else now + IDLE
            self._wakes_at = min(self._watched.next_due(), called_for)
            wait = self._wakes_at - now
        is_called = wait <= 0 or self._bell.wait(wait)
        with self._lock:
            if not is_called and not self._watched:
                self._thread = None
                return None
            return self._watched.due()

    def _renew(self, semaphore: SyncRenewing, tickets: list[Ticket]) -> None:
        try:
            semaphore.renew(tickets)
        except Exception as error:  # noqa: BLE001
            say_not_renewed(semaphore.name, error)
            with self._lock:
                lapsed = self._watched.failed(semaphore, tickets)
            for ticket in lapsed:
                ticket.lapse()


class AsyncWatch:
    """The task that renews; it starts when it is first needed, and ends when it wakes to nothing."""

    def __init__(self) -> None:
        self._watched: Watched[AsyncRenewing] = Watched()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._wakes_at = 0.0

    def add(self, ticket: Ticket, semaphore: AsyncRenewing) -> None:
        """Renew the ticket from now on."""
        self._watched.add(ticket, semaphore)
        if self._task is None or self._task.done():
            with suppress(RuntimeError):  # the loop has ended, and all leases will
                loop = asyncio.get_running_loop()
                self._task = loop.create_task(self._run(), name="steindamm-leases")
        elif ticket.due < self._wakes_at:
            self._changed.set()

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        self._watched.remove(ticket)

    def hurry(self) -> None:
        """Renew at once those who wait."""
        self._watched.hurry()
        self._changed.set()

    def catch_up(self, ticket: Ticket, asked_at: float) -> None:
        """Renew at once one that waits, where it was asked for its place before those who wait were hurried."""
        if self._watched.catch_up(ticket, asked_at):
            self._changed.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._watched and not must_end():
            self._wakes_at = self._watched.next_due()
            timer = loop.call_later(max(0.0, self._wakes_at - monotonic()), self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()
            self._changed.clear()
            for semaphore, tickets in self._watched.due().items():
                await self._renew(semaphore, tickets)

    async def _renew(self, semaphore: AsyncRenewing, tickets: list[Ticket]) -> None:
        try:
            await semaphore.renew(tickets)
        except Exception as error:  # noqa: BLE001
            say_not_renewed(semaphore.name, error)
            for ticket in self._watched.failed(semaphore, tickets):
                ticket.lapse()
