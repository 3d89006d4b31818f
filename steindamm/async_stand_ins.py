"""What async limiters on Redis do while it does not answer. The twin for threads is `steindamm.sync_stand_ins`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from steindamm.answers import Answer
from steindamm.background import in_background
from steindamm.errors import LimiterUnavailableError
from steindamm.outages import ALLOW, RAISE, Outage, known_outage
from steindamm.permits import AsyncTokenPermit, Permit, SlotPermit
from steindamm.reservations import AsyncReservation
from steindamm.rules.semaphore import Place, Standing, Stay
from steindamm.stand_ins import (
    AsyncNobody,
    AsyncStandInPermit,
    Replaceable,
    affordable,
    marked_answer,
    marked_slot,
    open_slot,
)
from steindamm.state import SemaphoreState, TokenBucketState
from steindamm.tickets import Ticket

NOBODY = AsyncNobody()


class AsyncOpen:
    """A limiter that lets everything through.

    Parameters:
        give: Makes its permits.
    """

    def __init__(self, give: Callable[[], Permit]) -> None:
        self._give = give

    async def acquire(self) -> Permit:
        """A permit."""
        return self._give()

    try_acquire = acquire

    async def reserve(self) -> AsyncReservation:
        """A turn: now."""
        return AsyncReservation(self._give(), 0.0)

    async def ask(self, **_: Any) -> Answer:
        """Start."""
        permit = self._give()
        return Answer(0.0, permit=permit, ticket=permit if isinstance(permit, Ticket) else None)

    async def give_back(self, answer: Answer) -> None:
        """Nothing was taken."""

    async def _leave(self, permit: Permit, *, used: bool = True) -> None:
        """Nothing is held."""


class AsyncReplaceable(Replaceable):
    """What all kinds of limiters have in common."""

    async def acquire(self) -> Any:
        """As the class without Redis, or the one with it, does."""
        return await self._or_else(super().acquire, self._acquire_other)  # type: ignore[misc]

    async def try_acquire(self) -> Any:
        """The same."""
        return await self._or_else(super().try_acquire, self._try_other)  # type: ignore[misc]

    async def reserve(self) -> Any:
        """The same."""
        return await self._or_else(super().reserve, self._reserve_other)  # type: ignore[misc]

    async def ask(self, **question: Any) -> Any:
        """The same."""
        if self.on_unavailable == RAISE:
            return await super().ask(**question)  # type: ignore[misc]
        return await self._or_else(partial(super().ask, **question), lambda: self._ask_other(question))  # type: ignore[misc]

    async def _or_else(self, ask: Callable[[], Awaitable[Any]], instead: Callable[[], Awaitable[Any]]) -> Any:
        if self.on_unavailable == RAISE:
            return await ask()
        outage = known_outage(self._outage_key)
        if outage is not None and outage.lasts and not (outage.may_look() and await self._is_back(outage)):
            return await self._do_without(instead)
        try:
            given = await ask()
        except LimiterUnavailableError as error:
            self._note(error)
            return await self._do_without(instead)
        if outage is not None and not getattr(given, "without_backend", False):
            outage.answered()
        return given

    async def _is_back(self, outage: Outage) -> bool:
        try:
            await self._look()
        except LimiterUnavailableError as error:
            self._note(error)
            return False
        outage.end()
        return True

    async def _do_without(self, instead: Callable[[], Awaitable[Any]]) -> Any:
        self._used_without()
        return await instead()

    async def _acquire_other(self) -> Any:
        return self._own(await self._other().acquire())

    async def _try_other(self) -> Any:
        permit = await self._other().try_acquire()
        return None if permit is None else self._own(permit)

    async def _reserve_other(self) -> AsyncReservation:
        reservation = await self._other().reserve()
        return AsyncReservation(self._own(reservation.permit), reservation.delay, reservation.cancel)

    async def _ask_other(self, question: dict[str, Any]) -> Answer:
        answer = await self._other().ask(**self._other_question(question))
        return marked_answer(answer, None if answer.permit is None else self._own(answer.permit))

    def _other_question(self, question: dict[str, Any]) -> dict[str, Any]:
        return question

    async def _look(self) -> object:
        """Find out whether the backend answers."""
        return await self._backend.look()

    def _other(self) -> Any:
        """What is asked instead."""
        raise NotImplementedError

    def _own(self, permit: Any) -> Any:
        """A permit that the other one gave, as one of this limiter."""
        raise NotImplementedError


class AsyncReplaceableBucket(AsyncReplaceable):
    """What an async token bucket on Redis does while it does not answer."""

    _cost: float

    async def state(self) -> TokenBucketState:
        """What can be seen of it now, and how often this process did without Redis."""
        seen: TokenBucketState = await super().state()  # type: ignore[misc]
        return replace(seen, without_backend=self.uses_without_backend)

    async def give_back(self, answer: Answer) -> None:
        """Return the turn that an answer gave to whoever gave it."""
        if answer.without_backend:
            await self._other().give_back(answer)
        else:
            await super().give_back(answer)  # type: ignore[misc]

    def lets_go(self, error: LimiterUnavailableError) -> bool:
        """Whether a cost stays unsettled where Redis does not answer, rather than that it is an error."""
        if self.on_unavailable == RAISE:
            return False
        self._note(error)
        return True

    def _other(self) -> Any:
        other = self.on_unavailable
        if other == ALLOW:
            return AsyncOpen(lambda: AsyncTokenPermit.of(self.name, self._cost, 0.0, NOBODY))
        return other(affordable(other, self._cost))

    def _own(self, permit: AsyncTokenPermit) -> AsyncStandInPermit:
        return AsyncStandInPermit.of(self.name, permit.cost, permit.waited, permit._limiter)

    async def _ask_other(self, question: dict[str, Any]) -> Answer:
        cost = question.pop("cost", None)
        if cost is None:
            return await super()._ask_other(question)
        costly: Any = self(cost)  # type: ignore[operator]
        answer: Answer = await costly._ask_other(question)
        return answer


class AsyncReplaceableSemaphore(AsyncReplaceable):
    """What an async semaphore on Redis does while it does not answer."""

    async def state(self) -> SemaphoreState:
        """What can be seen of it now, and how often this process did without Redis."""
        seen: SemaphoreState = await super().state()  # type: ignore[misc]
        return replace(seen, without_backend=self.uses_without_backend)

    async def release(self, permit: SlotPermit) -> None:
        """Give the slot back to whoever gave it."""
        if getattr(permit, "without_backend", False):
            await self._leave(permit)
        else:
            await super().release(permit)  # type: ignore[misc]

    async def _leave(self, permit: Any, *, used: bool = True) -> None:
        if permit.without_backend:
            await self._other()._leave(permit.given or permit, used=used)
            permit.gone = True
        else:
            await super()._leave(permit, used=used)  # type: ignore[misc]

    def _other(self) -> Any:
        return AsyncOpen(partial(open_slot, self.name)) if self.on_unavailable == ALLOW else self.on_unavailable

    def _own(self, permit: SlotPermit) -> SlotPermit:
        return marked_slot(permit)

    def _ticket(self, wake: Callable[[], object] | None = None, job: str | None = None) -> Ticket:
        ticket: Ticket = super()._ticket(wake, job)  # type: ignore[misc]
        if self.on_unavailable != RAISE:
            ticket.lapsed = self._hand
        return ticket

    async def _give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, here or at the other one, unless a slot has come meanwhile."""
        if not ticket.without_backend:
            return await self._give_up_here(ticket)
        if ticket.given is None:
            return Place(Standing.HOLDING, ticket.fence, 0.0)
        place: Place = await self.on_unavailable.backend.give_up(ticket.given)
        if place.standing is Standing.HOLDING:
            ticket.hand_without_backend()
        else:
            ticket.gone = True
        return place

    async def _give_up_here(self, ticket: Ticket) -> Place:
        try:
            place: Place = await super()._give_up(ticket)  # type: ignore[misc]
        except LimiterUnavailableError:
            if ticket.without_backend:
                await self._leave(ticket, used=False)
            raise
        return place

    def _abandon(self, backend: Any, ticket: Ticket) -> None:
        super()._abandon(backend, ticket)  # type: ignore[misc]
        if ticket.given is not None:
            self.on_unavailable.backend.abandon(ticket.given)

    def _hand(self, ticket: Ticket) -> None:
        """Its place in line has lapsed, for Redis does not answer: it gets a slot of the other one."""
        self._note(LimiterUnavailableError(self.name))
        self._used_without()
        self._backend.forget_place(ticket)
        if self.on_unavailable == ALLOW:
            ticket.without_backend = True
            ticket.hand_without_backend()
            return
        given = Ticket(self.on_unavailable.name, lambda: self._pass_on(given, ticket), ticket.job)
        ticket.given = given
        ticket.without_backend = True
        in_background(self._wait_at_other(given, ticket))

    async def _wait_at_other(self, given: Ticket, ticket: Ticket) -> None:
        place = await self.on_unavailable.backend.enter(given, 0.0, Stay.LISTENING)
        if ticket.gone or (place.standing is Standing.HOLDING and not given.woken):
            self._pass_on(given, ticket)

    def _pass_on(self, given: Ticket, ticket: Ticket) -> None:
        if not ticket.hand_without_backend():
            self.on_unavailable.backend.abandon(given)
