"""What sync limiters on Redis do while it does not answer. The twin for tasks is `steindamm.async_stand_ins`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from steindamm.answers import Answer
from steindamm.errors import LimiterUnavailableError
from steindamm.outages import ALLOW, RAISE, Outage, known_outage
from steindamm.permits import Permit, SlotPermit, SyncTokenPermit
from steindamm.reservations import SyncReservation
from steindamm.rules.semaphore import Place, Standing, Stay
from steindamm.stand_ins import (
    Nobody,
    Replaceable,
    SyncStandInPermit,
    affordable,
    marked_answer,
    marked_slot,
    open_slot,
)
from steindamm.state import SemaphoreState, TokenBucketState
from steindamm.tickets import Ticket

NOBODY = Nobody()


class SyncOpen:
    """A limiter that lets everything through.

    Parameters:
        give: Makes its permits.
    """

    def __init__(self, give: Callable[[], Permit]) -> None:
        self.acquire = self.try_acquire = give

    def reserve(self) -> SyncReservation:
        """A turn: now."""
        return SyncReservation(self.acquire(), 0.0)

    def ask(self, **_: Any) -> Answer:
        """Start."""
        permit = self.acquire()
        return Answer(0.0, permit=permit, ticket=permit if isinstance(permit, Ticket) else None)

    def give_back(self, answer: Answer) -> None:
        """Nothing was taken."""

    def _leave(self, permit: Permit, *, used: bool = True) -> None:
        """Nothing is held."""


class SyncReplaceable(Replaceable):
    """What all kinds of limiters have in common."""

    def acquire(self) -> Any:
        """As the class without Redis, or the one with it, does."""
        return self._or_else(super().acquire, self._acquire_other)  # type: ignore[misc]

    def try_acquire(self) -> Any:
        """The same."""
        return self._or_else(super().try_acquire, self._try_other)  # type: ignore[misc]

    def reserve(self) -> Any:
        """The same."""
        return self._or_else(super().reserve, self._reserve_other)  # type: ignore[misc]

    def ask(self, **question: Any) -> Any:
        """The same."""
        if self.on_unavailable == RAISE:
            return super().ask(**question)  # type: ignore[misc]
        return self._or_else(partial(super().ask, **question), lambda: self._ask_other(question))  # type: ignore[misc]

    def _or_else(self, ask: Callable[[], Any], instead: Callable[[], Any]) -> Any:
        if self.on_unavailable == RAISE:
            return ask()
        outage = known_outage(self._outage_key)
        if outage is not None and outage.lasts and not (outage.may_look() and self._is_back(outage)):
            return self._do_without(instead)
        try:
            given = ask()
        except LimiterUnavailableError as error:
            self._note(error)
            return self._do_without(instead)
        if outage is not None and not getattr(given, "without_backend", False):
            outage.answered()
        return given

    def _is_back(self, outage: Outage) -> bool:
        try:
            self._look()
        except LimiterUnavailableError as error:
            self._note(error)
            return False
        outage.end()
        return True

    def _do_without(self, instead: Callable[[], Any]) -> Any:
        self._used_without()
        return instead()

    def _acquire_other(self) -> Any:
        return self._own(self._other().acquire())

    def _try_other(self) -> Any:
        permit = self._other().try_acquire()
        return None if permit is None else self._own(permit)

    def _reserve_other(self) -> SyncReservation:
        reservation = self._other().reserve()
        return SyncReservation(self._own(reservation.permit), reservation.delay, reservation.cancel)

    def _ask_other(self, question: dict[str, Any]) -> Answer:
        answer = self._other().ask(**self._other_question(question))
        return marked_answer(answer, None if answer.permit is None else self._own(answer.permit))

    def _other_question(self, question: dict[str, Any]) -> dict[str, Any]:
        return question

    def _look(self) -> object:
        """Find out whether the backend answers."""
        return self._backend.look()

    def _other(self) -> Any:
        """What is asked instead."""
        raise NotImplementedError

    def _own(self, permit: Any) -> Any:
        """A permit that the other one gave, as one of this limiter."""
        raise NotImplementedError


class SyncReplaceableBucket(SyncReplaceable):
    """What a sync token bucket on Redis does while it does not answer."""

    _cost: float

    def state(self) -> TokenBucketState:
        """What can be seen of it now, and how often this process did without Redis."""
        seen: TokenBucketState = super().state()  # type: ignore[misc]
        return replace(seen, without_backend=self.uses_without_backend)

    def give_back(self, answer: Answer) -> None:
        """Return the turn that an answer gave to whoever gave it."""
        if answer.without_backend:
            self._other().give_back(answer)
        else:
            super().give_back(answer)  # type: ignore[misc]

    def lets_go(self, error: LimiterUnavailableError) -> bool:
        """Whether a cost stays unsettled where Redis does not answer, rather than that it is an error."""
        if self.on_unavailable == RAISE:
            return False
        self._note(error)
        return True

    def _other(self) -> Any:
        other = self.on_unavailable
        if other == ALLOW:
            return SyncOpen(lambda: SyncTokenPermit.of(self.name, self._cost, 0.0, NOBODY))
        return other(affordable(other, self._cost))

    def _own(self, permit: SyncTokenPermit) -> SyncStandInPermit:
        return SyncStandInPermit.of(self.name, permit.cost, permit.waited, permit._limiter)

    def _ask_other(self, question: dict[str, Any]) -> Answer:
        cost = question.pop("cost", None)
        if cost is None:
            return super()._ask_other(question)
        costly: Any = self(cost)  # type: ignore[operator]
        answer: Answer = costly._ask_other(question)
        return answer


class SyncReplaceableSemaphore(SyncReplaceable):
    """What a sync semaphore on Redis does while it does not answer."""

    def state(self) -> SemaphoreState:
        """What can be seen of it now, and how often this process did without Redis."""
        seen: SemaphoreState = super().state()  # type: ignore[misc]
        return replace(seen, without_backend=self.uses_without_backend)

    def release(self, permit: SlotPermit) -> None:
        """Give the slot back to whoever gave it."""
        if getattr(permit, "without_backend", False):
            self._leave(permit)
        else:
            super().release(permit)  # type: ignore[misc]

    def _leave(self, permit: Any, *, used: bool = True) -> None:
        if permit.without_backend:
            self._other()._leave(permit.given or permit, used=used)
            permit.gone = True
        else:
            super()._leave(permit, used=used)  # type: ignore[misc]

    def _other(self) -> Any:
        return SyncOpen(partial(open_slot, self.name)) if self.on_unavailable == ALLOW else self.on_unavailable

    def _own(self, permit: SlotPermit) -> SlotPermit:
        return marked_slot(permit)

    def _ticket(self, wake: Callable[[], object] | None = None, job: str | None = None) -> Ticket:
        ticket: Ticket = super()._ticket(wake, job)  # type: ignore[misc]
        if self.on_unavailable != RAISE:
            ticket.lapsed = self._hand
        return ticket

    def _give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, here or at the other one, unless a slot has come meanwhile."""
        if not ticket.without_backend:
            return self._give_up_here(ticket)
        if ticket.given is None:
            return Place(Standing.HOLDING, ticket.fence, 0.0)
        place: Place = self.on_unavailable.backend.give_up(ticket.given)
        if place.standing is Standing.HOLDING:
            ticket.hand_without_backend()
        else:
            ticket.gone = True
        return place

    def _give_up_here(self, ticket: Ticket) -> Place:
        try:
            place: Place = super()._give_up(ticket)  # type: ignore[misc]
        except LimiterUnavailableError:
            if ticket.without_backend:
                self._leave(ticket, used=False)
            raise
        return place

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
        self._wait_at_other(given, ticket)

    def _wait_at_other(self, given: Ticket, ticket: Ticket) -> None:
        place = self.on_unavailable.backend.enter(given, 0.0, Stay.LISTENING)
        if ticket.gone or (place.standing is Standing.HOLDING and not given.woken):
            self._pass_on(given, ticket)

    def _pass_on(self, given: Ticket, ticket: Ticket) -> None:
        if not ticket.hand_without_backend():
            self.on_unavailable.backend.leave(given, used=False)
