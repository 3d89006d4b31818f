"""Renews what this process holds or waits for, each ticket every third of what it lasts.

One thread a process serves all sync semaphores, one task a loop all async ones. A ticket that is renewed
too late is lost, and says so.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable
from threading import Condition, Thread
from time import monotonic
from typing import Generic, Protocol, TypeVar

from steindamm.errors import LimiterUnavailableError
from steindamm.loops import EachLoop
from steindamm.tickets import Ticket

AGAIN = 0.5
"""Seconds until the next try where the backend did not answer."""


class SyncRenewing(Protocol):
    """A semaphore that renews tickets, and tells after how many seconds to come again."""

    def renew(self, tickets: list[Ticket]) -> None: ...  # noqa: D102
    def interval(self, ticket: Ticket) -> float: ...  # noqa: D102


class AsyncRenewing(Protocol):
    """The same for tasks."""

    async def renew(self, tickets: list[Ticket]) -> None: ...  # noqa: D102
    def interval(self, ticket: Ticket) -> float: ...  # noqa: D102


Renewing = TypeVar("Renewing", SyncRenewing, AsyncRenewing)


class Watched(Generic[Renewing]):
    """The tickets that are renewed, and when each is due."""

    def __init__(self) -> None:
        self._due: dict[Ticket, tuple[float, Renewing]] = {}

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, ticket: Ticket, backend: Renewing) -> float:
        """Renew the ticket from now on; returns when it is due."""
        due = monotonic() + backend.interval(ticket)
        self._due[ticket] = (due, backend)
        return due

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        self._due.pop(ticket, None)

    def next_due(self) -> float:
        """When the first of them is due."""
        return min((due for due, _ in tuple(self._due.values())), default=float("inf"))

    def due(self) -> dict[Renewing, list[Ticket]]:
        """Those that are due now."""
        now = monotonic()
        groups: defaultdict[Renewing, list[Ticket]] = defaultdict(list)
        for ticket, (due, backend) in tuple(self._due.items()):
            if due <= now:
                groups[backend].append(ticket)
        return groups

    def renewed(self, tickets: Iterable[Ticket]) -> None:
        """Set their next time; what is lost is let go."""
        for ticket in tickets:
            entry = self._due.get(ticket)
            if entry and not ticket.lost:
                self.add(ticket, entry[1])
            else:
                self.remove(ticket)

    def failed(self, tickets: Iterable[Ticket]) -> None:
        """Try again soon; a ticket that holds on for no longer than it was promised is lost."""
        now = monotonic()
        for ticket in tickets:
            entry = self._due.get(ticket)
            if entry:
                self._due[ticket] = (now + min(AGAIN, entry[1].interval(ticket)), entry[1])
            if ticket.holds and now > ticket.good_until:
                ticket.lost = True

    def hurry(self) -> None:
        """All are due now: something may have been missed."""
        self._due = {ticket: (0.0, backend) for ticket, (_, backend) in self._due.items()}


class SyncWatch:
    """The thread that renews; it starts when it is first needed."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """A forked child watches over nothing: its parent goes on renewing."""
        self._changed = Condition()
        self._watched: Watched[SyncRenewing] = Watched()
        self._thread: Thread | None = None
        self._wakes_at = 0.0

    def add(self, ticket: Ticket, backend: SyncRenewing) -> None:
        """Renew the ticket from now on."""
        with self._changed:
            due = self._watched.add(ticket, backend)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="steindamm-leases", daemon=True)
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify()

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        with self._changed:
            self._watched.remove(ticket)

    def hurry(self) -> None:
        """Renew all at once."""
        with self._changed:
            self._watched.hurry()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wakes_at = self._watched.next_due()
                wait = self._wakes_at - monotonic()
                if wait > 0:
                    self._changed.wait(None if wait == float("inf") else wait)
                groups = self._watched.due()
            for backend, tickets in groups.items():
                self._renew(backend, tickets)

    def _renew(self, backend: SyncRenewing, tickets: list[Ticket]) -> None:
        try:
            backend.renew(tickets)
        except LimiterUnavailableError:
            with self._changed:
                self._watched.failed(tickets)
        else:
            with self._changed:
                self._watched.renewed(tickets)


class AsyncWatch:
    """The task that renews; it starts when it is first needed, and ends when it wakes to nothing."""

    def __init__(self) -> None:
        self._watched: Watched[AsyncRenewing] = Watched()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._wakes_at = 0.0

    def add(self, ticket: Ticket, backend: AsyncRenewing) -> None:
        """Renew the ticket from now on."""
        due = self._watched.add(ticket, backend)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif due < self._wakes_at:
            self._changed.set()

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        self._watched.remove(ticket)

    def hurry(self) -> None:
        """Renew all at once."""
        self._watched.hurry()
        self._changed.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._watched:
            self._wakes_at = self._watched.next_due()
            timer = loop.call_later(max(0.0, self._wakes_at - monotonic()), self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()
            self._changed.clear()
            for backend, tickets in self._watched.due().items():
                await self._renew(backend, tickets)

    async def _renew(self, backend: AsyncRenewing, tickets: list[Ticket]) -> None:
        try:
            await backend.renew(tickets)
        except LimiterUnavailableError:
            self._watched.failed(tickets)
        else:
            self._watched.renewed(tickets)


SYNC_WATCH = SyncWatch()
_async_watches = EachLoop(AsyncWatch)


def async_watch() -> AsyncWatch:
    """The watch of the running loop."""
    return _async_watches.here()
