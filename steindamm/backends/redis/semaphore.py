"""A semaphore in Redis: requests to the script, places back, one call for all who ask together."""

from __future__ import annotations

import asyncio
import logging
from struct import Struct
from typing import Any, Generic, TypeVar

from steindamm.backends.redis.connection import checked_connection
from steindamm.backends.redis.links import AsyncLink, Reply, SyncLink, async_link, counts_listeners, sync_link
from steindamm.backends.redis.looking import look_at_semaphore
from steindamm.backends.redis.scripts import semaphore_change_script, semaphore_look_script, semaphore_script
from steindamm.backends.redis.sharing import MOST, AsyncSharing, SyncSharing
from steindamm.backends.redis.watch import say_lost
from steindamm.backends.terms import MICROSECONDS, semaphore_terms
from steindamm.background import in_background
from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError
from steindamm.loops import EachLoop
from steindamm.rules.changes import Change
from steindamm.rules.semaphore import Place, Request, Standing, Stay, What
from steindamm.settings import SemaphoreSettings
from steindamm.state import MOST_LISTED, SemaphoreState
from steindamm.tickets import Ticket

logger = logging.getLogger("steindamm")
ONCE_MORE = 1.0
"""Seconds after which a question that was cut short has come to the server, if it ever does."""

TERMS = Struct("<4d")
REQUEST = Struct("<4d")
STANDINGS = {int(standing): standing for standing in Standing}
UNUSED = -1.0
PARTS = "leases", "listening", "away", "present", "since"
"""What a semaphore keeps beside its state."""

Link = TypeVar("Link", SyncLink, AsyncLink)


class SemaphoreWire:
    """What a semaphore's script is sent, and what its reply means."""

    def __init__(self, settings: SemaphoreSettings) -> None:
        self.name = settings.name
        self.script = semaphore_script()
        self.change_script = semaphore_change_script()
        self.look_script = semaphore_look_script()
        prefix = f"steindamm:{settings.key}:semaphore"
        self.keys = (prefix, *(f"{prefix}:{part}" for part in PARTS))
        self.terms = semaphore_terms(settings)
        self.identity = (prefix, self.terms)
        self._packed_terms = [TERMS.pack(*self.terms, counted) for counted in (False, True)]
        self.lease = self.terms.lease / MICROSECONDS
        self.presence = self.terms.presence / MICROSECONDS

    def encoded(self, requests: list[Request], *, counted: bool) -> tuple[Any, ...]:
        """The script's arguments."""
        return (
            self._packed_terms[counted],
            b"".join([REQUEST.pack(what, number, stay, slack) for what, _, number, stay, slack in requests]),
            *[request.asker.id for request in requests],
        )

    def encoded_change(self, change: Change, *, counted: bool) -> tuple[bytes, ...]:
        """The arguments of the script that changes the semaphore."""
        numbers = Struct(f"<{len(change.numbers)}d").pack(*change.numbers)
        return TERMS.pack(*self.terms, counted), change.kind.encode(), numbers, change.note

    def decoded(self, reply: Reply) -> list[Place]:
        """One place for each request."""
        closed = reply.pop() if len(reply) % 3 else 0
        places = []
        try:
            for at in range(0, len(reply), 3):
                standing, number, wait = reply[at : at + 3]
                places.append(Place(STANDINGS[standing], number, wait, closed))
        except KeyError:
            raise LimiterUnavailableError(self.name, "malformed reply") from None
        return places


class RedisSemaphore(Generic[Link]):
    """What the semaphore of threads and that of tasks share: all that does not wait."""

    _link: Any

    def __init__(self, link: Link, wire: SemaphoreWire) -> None:
        self._link = link
        self._wire = wire
        self.name = wire.name

    @property
    def link(self) -> Any:
        """What reaches the server; all limiters of a client share it."""
        return self._link

    def leave_later(self, ticket: Ticket, seconds: float = 0.0) -> None:
        """Have given back what a ticket may hold, or wait for, as soon as there is somebody who takes it."""
        self.forget(ticket)
        ticket.good_until = monotonic() + self._wire.lease
        ticket.due = monotonic() + seconds
        self._link.watch.add(ticket, self)

    def entering(self, ticket: Ticket, stay: Stay) -> None:
        """From now on a hand-over may come, which is sooner, maybe, than the reply."""
        if stay is Stay.LISTENING:
            ticket.keep(monotonic(), self._wire.presence)
            self._link.hearing.tickets[ticket.id] = ticket

    def is_late(self, place: Place, asked_at: float) -> bool:
        """Whether a lease may be over before its holder has heard of it."""
        return place.standing is Standing.HOLDING and monotonic() > asked_at + self._wire.lease

    def entered(self, ticket: Ticket, place: Place, stay: Stay, asked_at: float) -> None:
        """The ticket stands where the reply says, from now on."""
        if place.standing is Standing.HOLDING:
            self._link.hearing.tickets.pop(ticket.id, None)
            ticket.keep(asked_at, self._wire.lease)
            ticket.take(int(place.number))
            self._link.watch.add(ticket, self)
        elif stay is Stay.LISTENING:
            ticket.keep(asked_at, self._wire.presence)
            ticket.number = place.number
            ticket.ask_when_open(place.closed / MICROSECONDS)
            self._link.watch.add(ticket, self)
            self._link.watch.catch_up(ticket, asked_at)
            self._link.hearing.listen()

    def forget(self, ticket: Ticket) -> None:
        """The ticket stands nowhere any more."""
        ticket.gone = True
        self._link.watch.remove(ticket)
        self._link.hearing.tickets.pop(ticket.id, None)

    def forget_place(self, ticket: Ticket) -> None:
        """The ticket waits for no slot of this semaphore any more; its place at the server has lapsed."""
        self._link.watch.remove(ticket)
        self._link.hearing.tickets.pop(ticket.id, None)

    def _leaving(self, ticket: Ticket, *, used: bool) -> Request:
        held = ticket.held_for if used and ticket.fence else UNUSED
        self.forget(ticket)
        return Request(What.LEAVE, ticket, held)

    def not_left(self, ticket: Ticket, error: LimiterUnavailableError) -> None:
        """Its slot could not be given back."""
        logger.warning("limiter %r: slot %s is not given back for now: %s", self.name, ticket.id, error)
        self.leave_later(ticket)

    def _renewing(self, tickets: list[Ticket]) -> list[Request]:
        """In the order of the line: of those who were passed over, the first finds what has become free."""
        return [
            Request(What.LEAVE, ticket, UNUSED)
            if ticket.gone
            else Request(What.RENEW, ticket, ticket.place or -float(ticket.fence))
            for ticket in sorted(tickets, key=lambda ticket: ticket.place)
        ]

    def _renewed(self, requests: list[Request], places: list[Place], asked_at: float) -> list[Ticket]:
        """Tell the tickets where they stand; returns those that a renewal that came too late has brought back."""
        returned = []
        for (what, ticket, *_), place in zip(requests, places, strict=True):
            if what is What.LEAVE:
                self._link.watch.remove(ticket)
                continue
            self._stands(ticket, place, asked_at)
            if ticket.gone and place.standing is not Standing.OUT:
                self.leave_later(ticket)
                returned.append(ticket)
        return returned

    def _stands(self, ticket: Ticket, place: Place, asked_at: float) -> None:
        if place.standing is Standing.HOLDING:
            ticket.keep(asked_at, self._wire.lease)
            if ticket.hand(int(place.number)):
                self._link.hearing.tickets.pop(ticket.id, None)
        elif place.standing is Standing.WAITING:
            ticket.keep_place(asked_at, self._wire.presence)
            ticket.number = place.number
            ticket.ask_when_open(place.closed / MICROSECONDS)
            self._link.watch.catch_up(ticket, asked_at)
        else:
            self._link.watch.remove(ticket)
            if ticket.fence and not ticket.gone:
                say_lost(self.name, ticket)


class SyncRedisSemaphore(RedisSemaphore[SyncLink]):
    """A semaphore asked by threads."""

    def __init__(self, link: SyncLink, wire: SemaphoreWire) -> None:
        super().__init__(link, wire)
        self._sharing = SyncSharing(self._call, self._undo)

    def enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        """Ask for a slot, or a place in the line; the ticket then knows where it stands."""
        self.entering(ticket, stay)
        request = Request(What.ENTER, ticket, number, stay, slack)
        while True:
            asked_at = monotonic()
            place = self._ask(request)
            if not self.is_late(place, asked_at):
                break
        self.entered(ticket, place, stay, asked_at)
        return place

    def give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, unless a slot has come meanwhile."""
        good_until, asked_at = ticket.good_until, monotonic()
        place = self._ask(Request(What.GIVE_UP, ticket))
        if place.standing is Standing.HOLDING:
            self.entered(ticket, place, Stay.NO, asked_at)
            return place
        self.forget(ticket)
        if ticket.good_until != good_until:  # renewed meanwhile, maybe after it had given up
            self.leave(ticket, used=False)
        return place

    def leave(self, ticket: Ticket, *, used: bool = True) -> None:
        """Give the slot, or the place in the line, back."""
        if not ticket.is_ours:
            return
        if self._sharing.is_interrupted:
            self.leave_later(ticket)
            return
        try:
            self._sharing.ask(self._leaving(ticket, used=used))
        except LimiterUnavailableError as error:
            self.not_left(ticket, error)
        except BaseException:
            self.leave_later(ticket)
            raise

    def renew(self, tickets: list[Ticket]) -> None:
        """Hold on to what the tickets hold or wait for, and give back what is gone."""
        for first in range(0, len(tickets), MOST):
            asked_at = monotonic()
            requests = self._renewing(tickets[first : first + MOST])
            returned = self._renewed(requests, self._call(requests), asked_at)
            if returned:
                self.renew(returned)

    def _ask(self, request: Request) -> Place:
        try:
            return self._sharing.ask(request)
        except LimiterUnavailableError:
            self.leave_later(request.asker)
            raise

    def _call(self, requests: list[Request]) -> list[Place]:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self._link.client))
        return wire.decoded(self._link.run(wire.name, wire.script, wire.keys, args, 3 * len(requests)))

    def change(self, change: Change) -> None:
        """Make a change for all who share the semaphore."""
        wire = self._wire
        args = wire.encoded_change(change, counted=counts_listeners(self._link.client))
        self._link.run(wire.name, wire.change_script, wire.keys, args, 1)

    def look(self) -> SemaphoreState:
        """What can be seen of it now."""
        wire = self._wire
        reply = self._link.ask(wire.name, wire.look_script, wire.keys, (MOST_LISTED,))
        return look_at_semaphore(wire.name, wire.terms, reply)

    def _undo(self, request: Request, place: Place) -> None:
        """Nothing to do: whoever has gone leaves."""


class AsyncRedisSemaphore(RedisSemaphore[AsyncLink]):
    """A semaphore asked by the tasks of one event loop."""

    def __init__(self, link: AsyncLink, wire: SemaphoreWire) -> None:
        super().__init__(link, wire)
        self._sharing = AsyncSharing(self._call, wire.decoded, self._undo)

    async def enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        """Ask for a slot, or a place in the line; the ticket then knows where it stands."""
        self.entering(ticket, stay)
        request = Request(What.ENTER, ticket, number, stay, slack)
        while True:
            asked_at = monotonic()
            place = await self._ask(request)
            if not self.is_late(place, asked_at):
                break
        self.entered(ticket, place, stay, asked_at)
        return place

    async def give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, unless a slot has come meanwhile."""
        good_until, asked_at = ticket.good_until, monotonic()
        place = await self._ask(Request(What.GIVE_UP, ticket))
        if place.standing is Standing.HOLDING:
            self.entered(ticket, place, Stay.NO, asked_at)
            return place
        self.forget(ticket)
        if ticket.good_until != good_until:  # renewed meanwhile, maybe after it had given up
            await self.leave(ticket, used=False)
        return place

    async def leave(self, ticket: Ticket, *, used: bool = True) -> None:
        """Give the slot, or the place in the line, back; what a cancellation cuts short is done in the background."""
        if not ticket.is_ours:
            return
        request = self._leaving(ticket, used=used)
        try:
            await self._leave(request)
        except asyncio.CancelledError:
            await asyncio.shield(in_background(self._leave(request)))
            raise

    def abandon(self, ticket: Ticket) -> None:
        """Leave where nobody can await it; where no loop runs any more, the lease ends by itself."""
        if asyncio._get_running_loop() is not None:
            in_background(self._leave_twice(ticket))

    async def _leave_twice(self, ticket: Ticket) -> None:
        """The question that was cut short may come to the server after the first time."""
        await self.leave(ticket, used=False)
        self.leave_later(ticket, ONCE_MORE)

    async def renew(self, tickets: list[Ticket]) -> None:
        """Hold on to what the tickets hold or wait for, and give back what is gone."""
        for first in range(0, len(tickets), MOST):
            asked_at = monotonic()
            requests = self._renewing(tickets[first : first + MOST])
            returned = self._renewed(requests, self._wire.decoded(await self._call(requests)), asked_at)
            if returned:
                await self.renew(returned)

    async def _leave(self, request: Request) -> None:
        try:
            await self._sharing.ask(request)
        except LimiterUnavailableError as error:
            self.not_left(request.asker, error)

    async def _ask(self, request: Request) -> Place:
        try:
            return await self._sharing.ask(request)
        except LimiterUnavailableError:
            self.leave_later(request.asker)
            raise

    async def _call(self, requests: list[Request]) -> Reply:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self._link.client))
        reply: Reply = await self._link.run(wire.name, wire.script, wire.keys, args, 3 * len(requests))
        return reply

    async def change(self, change: Change) -> None:
        """Make a change for all who share the semaphore."""
        wire = self._wire
        args = wire.encoded_change(change, counted=counts_listeners(self._link.client))
        await self._link.run(wire.name, wire.change_script, wire.keys, args, 1)

    async def look(self) -> SemaphoreState:
        """What can be seen of it now."""
        wire = self._wire
        reply = await self._link.ask(wire.name, wire.look_script, wire.keys, (MOST_LISTED,))
        return look_at_semaphore(wire.name, wire.terms, reply)

    async def _undo(self, request: Request, place: Place) -> None:
        """Nothing to do: whoever has gone leaves."""


def sync_semaphore(connection: Any, settings: SemaphoreSettings) -> SyncRedisSemaphore:
    """The semaphore that all sync limiters of this name and these terms share."""
    checked_connection(connection, asynchronous=False)
    link, wire = sync_link(connection), SemaphoreWire(settings)
    return link.limiters.setdefault(wire.identity, SyncRedisSemaphore(link, wire))  # type: ignore[no-any-return]


def async_semaphores(connection: Any, settings: SemaphoreSettings) -> EachLoop[AsyncRedisSemaphore]:
    """The semaphores that all async limiters of this name and these terms share, one on each loop."""
    checked_connection(connection, asynchronous=True)
    wire = SemaphoreWire(settings)

    def make() -> AsyncRedisSemaphore:
        link = async_link(connection)
        return link.limiters.setdefault(wire.identity, AsyncRedisSemaphore(link, wire))  # type: ignore[no-any-return]

    return EachLoop(make)
