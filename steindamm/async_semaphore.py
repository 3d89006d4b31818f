"""The semaphore for asyncio tasks. Its twin for threads is `steindamm.sync_semaphore`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

from steindamm.answers import Answer
from steindamm.async_stand_ins import AsyncReplaceableSemaphore
from steindamm.backends.memory import MEMORY, AsyncMemorySemaphore
from steindamm.changing import AsyncChanging
from steindamm.checks import checked_number, checked_seconds
from steindamm.decorating import is_coroutine_function, refuse_generator
from steindamm.entered import this_task
from steindamm.errors import SteindammError
from steindamm.permits import SlotPermit
from steindamm.reservations import AsyncReservation
from steindamm.rules.changes import Change, Kind
from steindamm.rules.live import UNSET
from steindamm.rules.semaphore import Place, Standing, Stay
from steindamm.semaphore import Semaphore
from steindamm.sleepers import SECOND
from steindamm.state import SemaphoreState
from steindamm.tickets import Ticket


class AsyncSemaphore(AsyncChanging, Semaphore):
    """A limit on how many run at once, for asyncio; `steindamm.SyncSemaphore` is its twin and explains the model.

    Example:
        >>> import asyncio
        >>> from steindamm import AsyncSemaphore
        >>> async def main():
        ...     async with AsyncSemaphore(name="writers", capacity=2) as permit:
        ...         return permit.lost
        >>> asyncio.run(main())
        False

    Parameters:
        name: 1 to 200 bytes without braces and control characters.
        capacity: How many slots there are, at least 1.
        max_sleep: The longest wait, in seconds, for a slot; 0 waits without end.
        expiry: Seconds, at least 0.1, that a lease lasts unless it is renewed: so long a dead holder keeps its slot.
        group: A name in common with other limiters, which lays their keys into one slot of a cluster, so that
            `all_of` can ask them by one call. It is a part of what the limiter is shared by.
        on_unavailable: What to do where Redis does not answer: ``"raise"`` a `LimiterUnavailableError`, ``"allow"``
            everything, or the `AsyncLocalSemaphore` that is asked instead. In memory that never happens.
        connection: An async redis-py client (standalone or cluster), a URL, or None for this process's memory.

    Raises:
        ValueError: A setting is wrong; the message names it and says what it must be.
        TypeError: A setting, or the connection, is of the wrong kind.
    """

    _who = staticmethod(this_task)

    @classmethod
    def _chosen(cls, connection: Any) -> type[Semaphore]:
        if cls is not AsyncSemaphore:
            return cls
        return AsyncLocalSemaphore if connection is None else AsyncRedisSemaphore

    def _stand_in_kind(self) -> type[AsyncLocalSemaphore]:
        return AsyncLocalSemaphore

    async def acquire(self) -> SlotPermit:
        """Wait for a slot, and return the permit; give it back with `release`.

        Raises:
            MaxSleepExceededError: No slot came within `max_sleep`.
            LimiterUnavailableError: Redis did not answer.
        """
        handed = asyncio.Event()
        backend = self._backend
        ticket = self._ticket(waker(handed))
        try:
            place = await backend.enter(ticket, 0.0, Stay.LISTENING)
            if place.standing is Standing.WAITING and not await comes(handed, self._patience(ticket, place)):
                place = await self._give_up(ticket)
                if place.standing is Standing.OUT:
                    raise self._refusal(place)
        except SteindammError:
            raise
        except GeneratorExit:
            self._abandon(backend, ticket)
            raise
        except BaseException:
            await self._leave(ticket, used=False)
            raise
        return ticket

    async def try_acquire(self) -> SlotPermit | None:
        """A permit if a slot is free, else None. Never waits.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        ticket = Ticket(self.name)
        place = await self._enter(ticket, 0.0, Stay.NO)
        return ticket if place.standing is Standing.HOLDING else None

    async def reserve(self) -> AsyncReservation:
        """Take a slot that is free, for work that starts later. Never waits.

        Raises:
            MaxSleepExceededError: No slot is free; `retry_after` says when one is to be expected.
            LimiterUnavailableError: Redis did not answer.
        """
        ticket = Ticket(self.name)
        place = await self._enter(ticket, 0.0, Stay.NO)
        if place.standing is not Standing.HOLDING:
            raise self._refusal(place)
        return AsyncReservation(ticket, 0.0, lambda: self._backend.leave(ticket, used=False))

    async def release(self, permit: SlotPermit) -> None:
        """Give the slot back and hand it to the next in line. A lost lease, or a second release, changes nothing.

        A cancellation does not keep the slot. Where Redis does not answer that is logged, and tried again
        until the lease has ended anyway.

        Parameters:
            permit: What `acquire`, `try_acquire` or a reservation gave.

        Raises:
            TypeError: This is no permit.
            ValueError: It is another semaphore's.
        """
        await self._leave(self._ticket_of(permit))

    async def ask(
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
        place = await self._enter(ticket, number, stay, checked_seconds("slack", slack) * SECOND)
        return self._answer(ticket, place)

    async def override(self, *, capacity: int, by: str | None = None) -> None:
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
        await self._backend.change(self._overriding(by, capacity))

    async def clear_override(self) -> None:
        """Give it the slots that the code says.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        await self._backend.change(Change(Kind.OVERRIDE, (UNSET,)))

    async def state(self) -> SemaphoreState:
        """What can be seen of it now: who holds its slots, how many wait, what is changed. Looking changes nothing.

        Example:
            >>> import asyncio
            >>> from steindamm import AsyncSemaphore
            >>> asyncio.run(AsyncSemaphore("async writers, seen", capacity=2).state()).held
            0

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        seen: SemaphoreState = await self._backend.look()
        return seen

    async def give_back(self, answer: Answer) -> None:
        """Return the slot, or the place in the line, that an answer gave and nobody will use."""
        if answer.ticket is not None:
            await self._leave(answer.ticket, used=False)

    async def _enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        backend = self._backend
        try:
            place: Place = await backend.enter(ticket, number, stay, slack)
        except SteindammError:
            raise
        except GeneratorExit:
            self._abandon(backend, ticket)
            raise
        except BaseException:
            await self._leave(ticket, used=False)
            raise
        return place

    async def _give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, unless a slot has come meanwhile."""
        place: Place = await self._backend.give_up(ticket)
        return place

    async def _leave(self, permit: SlotPermit, *, used: bool = True) -> None:
        """Give a slot, or a place in line, back."""
        await self._backend.leave(permit, used=used)

    def _abandon(self, backend: Any, ticket: Ticket) -> None:
        """The same, where nobody can await it, and maybe no loop runs."""
        backend.abandon(ticket)

    async def __aenter__(self) -> SlotPermit:
        return self._blocks.begin(await self.acquire())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the slot back, though nobody awaits it."""
        permit = self._blocks.end()
        if kind is GeneratorExit:
            self._abandon(self._backend, self._ticket_of(permit))
        else:
            await self._leave(permit)

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        refuse_generator(function)
        if not is_coroutine_function(function):
            raise TypeError(f"{function!r} is no coroutine function: decorate it with a SyncSemaphore")

        @functools.wraps(function)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            async with self:
                return await function(*args, **kwargs)

        return limited


def waker(handed: asyncio.Event) -> Callable[[], None]:
    """Sets the event from whatever thread it is called in."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        if asyncio._get_running_loop() is loop:
            handed.set()
        else:
            loop.call_soon_threadsafe(handed.set)

    return wake


async def comes(handed: asyncio.Event, patience: float | None) -> bool:
    """Whether a slot is handed over within so many seconds; None waits without end."""
    try:
        async with asyncio.timeout(patience):
            return await handed.wait()
    except TimeoutError:
        return False


class AsyncLocalSemaphore(AsyncSemaphore):
    """A semaphore in this process's memory; `AsyncSemaphore` describes it. Its leases have no end."""

    def _connect(self, connection: Any) -> None:
        if connection is not None:
            raise TypeError("connection must be None for a local limiter; an AsyncRedisSemaphore takes one")
        self._backend = AsyncMemorySemaphore(self.settings, MEMORY)

    async def acquire(self) -> SlotPermit:
        """Wait for a slot, as `AsyncSemaphore.acquire` does."""
        return self._backend.enter_at_once() or await super().acquire()

    async def __aenter__(self) -> SlotPermit:
        return self._blocks.begin(self._backend.enter_at_once() or await super().acquire())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the slot back, though nobody awaits it."""
        permit = self._blocks.end()
        if kind is GeneratorExit:
            self._backend.abandon(permit)
        elif not self._backend.leave_at_once(permit):
            await self._leave(permit)


class AsyncRedisSemaphore(AsyncReplaceableSemaphore, AsyncSemaphore):
    """A semaphore in Redis, Valkey or Redis Cluster; `AsyncSemaphore` describes it."""

    def _connect(self, connection: Any) -> None:
        from steindamm.backends.redis.semaphore import async_semaphores  # noqa: PLC0415

        self._semaphores = async_semaphores(connection, self.settings)

    @property
    def _backend(self) -> Any:
        return self._semaphores.here()
