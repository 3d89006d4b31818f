"""The semaphore for threads. Its twin for tasks is `steindamm.async_semaphore`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import Any

from steindamm.answers import Answer
from steindamm.backends.memory import MEMORY, MemorySemaphore
from steindamm.bell import Bell
from steindamm.changing import SyncChanging
from steindamm.checks import checked_number, checked_seconds
from steindamm.decorating import is_asynchronous, refuse_generator
from steindamm.errors import SteindammError
from steindamm.permits import SlotPermit
from steindamm.reservations import SyncReservation
from steindamm.rules.changes import Change, Kind
from steindamm.rules.live import UNSET
from steindamm.rules.semaphore import Place, Standing, Stay
from steindamm.semaphore import Semaphore
from steindamm.sleepers import SECOND
from steindamm.state import SemaphoreState
from steindamm.sync_stand_ins import SyncReplaceableSemaphore
from steindamm.tickets import Ticket


class SyncSemaphore(SyncChanging, Semaphore):
    """A limit on how many run at once, shared by all who use its name on the same backend.

    An acquire takes one of `capacity` slots; where none is free it waits in line and is handed the next one,
    first come first served. On Redis a slot is a lease of `expiry` seconds: it is renewed every third of that
    for as long as it is held, and a holder that dies loses it when it ends. Calling the class gives a
    `SyncLocalSemaphore` (this process's memory) without a connection, and a `SyncRedisSemaphore` with one.

    Example:
        >>> from steindamm import SyncSemaphore
        >>> writers = SyncSemaphore(name="writers", capacity=2)
        >>> with writers as permit:
        ...     permit.lost
        False
        >>> @writers
        ... def write():
        ...     return "written"
        >>> write()
        'written'

    Parameters:
        name: 1 to 200 bytes without braces and control characters.
        capacity: How many slots there are, at least 1.
        max_sleep: The longest wait, in seconds, for a slot; 0 waits without end.
        expiry: Seconds, at least 0.1, that a lease lasts unless it is renewed: so long a dead holder keeps its slot.
        group: A name in common with other limiters, which lays their keys into one slot of a cluster, so that
            `all_of` can ask them by one call. It is a part of what the limiter is shared by.
        on_unavailable: What to do where Redis does not answer: ``"raise"`` a `LimiterUnavailableError`, ``"allow"``
            everything, or the `SyncLocalSemaphore` that is asked instead. In memory that never happens.
        connection: A sync redis-py client (standalone or cluster), a URL, or None for this process's memory.

    Raises:
        ValueError: A setting is wrong; the message names it and says what it must be.
        TypeError: A setting, or the connection, is of the wrong kind.
    """

    _who = staticmethod(get_ident)

    @classmethod
    def _chosen(cls, connection: Any) -> type[Semaphore]:
        if cls is not SyncSemaphore:
            return cls
        return SyncLocalSemaphore if connection is None else SyncRedisSemaphore

    def _stand_in_kind(self) -> type[SyncLocalSemaphore]:
        return SyncLocalSemaphore

    def acquire(self) -> SlotPermit:
        """Wait for a slot, and return the permit; give it back with `release`.

        Raises:
            MaxSleepExceededError: No slot came within `max_sleep`.
            LimiterUnavailableError: Redis did not answer.
        """
        handed = Bell()
        backend = self._backend
        ticket = self._ticket(handed.ring)
        try:
            place = backend.enter(ticket, 0.0, Stay.LISTENING)
            if place.standing is Standing.WAITING and not handed.wait(self._patience(ticket, place)):
                place = self._give_up(ticket)
                if place.standing is Standing.OUT:
                    raise self._refusal(place)
        except SteindammError:
            raise
        except BaseException:
            self._leave(ticket, used=False)
            raise
        return ticket

    def try_acquire(self) -> SlotPermit | None:
        """A permit if a slot is free, else None. Never waits.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        ticket = Ticket(self.name)
        place = self._enter(ticket, 0.0, Stay.NO)
        return ticket if place.standing is Standing.HOLDING else None

    def reserve(self) -> SyncReservation:
        """Take a slot that is free, for work that starts later. Never waits.

        Raises:
            MaxSleepExceededError: No slot is free; `retry_after` says when one is to be expected.
            LimiterUnavailableError: Redis did not answer.
        """
        ticket = Ticket(self.name)
        place = self._enter(ticket, 0.0, Stay.NO)
        if place.standing is not Standing.HOLDING:
            raise self._refusal(place)
        return SyncReservation(ticket, 0.0, lambda: self._backend.leave(ticket, used=False))

    def release(self, permit: SlotPermit) -> None:
        """Give the slot back and hand it to the next in line. A lost lease, or a second release, changes nothing.

        Where Redis does not answer that is logged, and tried again until the lease has ended anyway.

        Parameters:
            permit: What `acquire`, `try_acquire` or a reservation gave.

        Raises:
            TypeError: This is no permit.
            ValueError: It is another semaphore's.
        """
        self._leave(self._ticket_of(permit))

    def ask(
        self,
        *,
        turn: float | None = None,
        slack: float = 0.0,
        wake: Callable[[], object] | None = None,
        job: str | None = None,
    ) -> Answer:
        """Ask on behalf of a job, without waiting: start, come back, or be woken; see `Answer`.

        Parameters:
            turn: The arrival number that the job was told to come back with.
            slack: Seconds that the job may be late when it comes back before its place is forgotten.
            wake: Called once, from any thread, when a job that had to wait is handed a slot, which may be before
                this returns; `permit_of` then gives the permit. Without it the job goes away.
            job: The job's id, which people see in `state`.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        ticket = self._ticket(wake, job)
        stay = Stay.AWAY if wake is None else Stay.LISTENING
        number = 0.0 if turn is None else checked_number("turn", turn)
        place = self._enter(ticket, number, stay, checked_seconds("slack", slack) * SECOND)
        return self._answer(ticket, place)

    def override(self, *, capacity: int, by: str | None = None) -> None:
        """Give it another number of slots than the code has, for all processes, at once.

        Those who hold a slot keep it. `state` tells what is in force, who set it and when. It holds until it is
        cleared, or the semaphore was not used for a year.

        Parameters:
            capacity: How many slots there are, at least 1.
            by: Who does it; by default this process.

        Raises:
            ValueError, TypeError: This is no such number.
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(self._overriding(by, capacity))

    def clear_override(self) -> None:
        """Give it the slots that the code says.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(Change(Kind.OVERRIDE, (UNSET,)))

    def state(self) -> SemaphoreState:
        """What can be seen of it now: who holds its slots, how many wait, what is changed. Looking changes nothing.

        Example:
            >>> from steindamm import SyncSemaphore
            >>> writers = SyncSemaphore("writers, seen", capacity=2)
            >>> with writers:
            ...     [holder.job_id for holder in writers.state().holders]
            [None]

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        seen: SemaphoreState = self._backend.look()
        return seen

    def give_back(self, answer: Answer) -> None:
        """Return the slot, or the place in the line, that an answer gave and nobody will use."""
        if answer.ticket is not None:
            self._leave(answer.ticket, used=False)

    def _enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        try:
            place: Place = self._backend.enter(ticket, number, stay, slack)
        except SteindammError:
            raise
        except BaseException:
            self._leave(ticket, used=False)
            raise
        return place

    def _give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, unless a slot has come meanwhile."""
        place: Place = self._backend.give_up(ticket)
        return place

    def _leave(self, permit: SlotPermit, *, used: bool = True) -> None:
        """Give a slot, or a place in line, back."""
        self._backend.leave(permit, used=used)

    def __enter__(self) -> SlotPermit:
        permit = self.acquire()
        try:
            return self._blocks.begin(permit)
        except BaseException:
            self._leave(permit)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the slot back."""
        permit = self._blocks.end()
        try:
            self._leave(permit)
        except BaseException:
            self._leave(permit)
            raise

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        refuse_generator(function)
        if is_asynchronous(function):
            raise TypeError(f"{function!r} is asynchronous: decorate it with an AsyncSemaphore")

        @functools.wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return limited


class SyncLocalSemaphore(SyncSemaphore):
    """A semaphore in this process's memory; `SyncSemaphore` describes it. Its leases have no end."""

    def _connect(self, connection: Any) -> None:
        if connection is not None:
            raise TypeError("connection must be None for a local limiter; a SyncRedisSemaphore takes one")
        self._backend = MemorySemaphore(self.settings, MEMORY)

    def acquire(self) -> SlotPermit:
        """Wait for a slot, as `SyncSemaphore.acquire` does."""
        return self._backend.enter_at_once() or super().acquire()

    def __enter__(self) -> SlotPermit:
        permit = self._backend.enter_at_once() or super().acquire()
        try:
            return self._blocks.begin(permit)
        except BaseException:
            self._leave(permit)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the slot back."""
        permit = self._blocks.end()
        try:
            if not self._backend.leave_at_once(permit):
                self._leave(permit)
        except BaseException:
            self._leave(permit)
            raise


class SyncRedisSemaphore(SyncReplaceableSemaphore, SyncSemaphore):
    """A semaphore in Redis, Valkey or Redis Cluster; `SyncSemaphore` describes it."""

    def _connect(self, connection: Any) -> None:
        from steindamm.backends.redis.semaphore import sync_semaphore  # noqa: PLC0415

        self._backend = sync_semaphore(connection, self.settings)
