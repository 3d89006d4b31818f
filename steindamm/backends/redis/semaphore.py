"""A semaphore in Redis: requests to the script, places back, one call for all who ask together."""

from __future__ import annotations

import logging
from struct import Struct
from time import monotonic
from typing import Any

from steindamm.backends.redis.connection import checked_connection
from steindamm.backends.redis.links import AsyncLink, Reply, SyncLink, async_link, counts_listeners, sync_link
from steindamm.backends.redis.scripts import semaphore_script
from steindamm.backends.redis.sharing import AsyncSharing, SyncSharing
from steindamm.backends.redis.watch import SYNC_WATCH, async_watch
from steindamm.backends.terms import MICROSECONDS, semaphore_terms
from steindamm.errors import LimiterUnavailableError
from steindamm.loops import EachLoop
from steindamm.rules.semaphore import Place, Request, Standing, Stay, What
from steindamm.settings import SemaphoreSettings
from steindamm.tickets import Ticket

logger = logging.getLogger("steindamm")

TERMS = Struct("<4d")
REQUEST = Struct("<4d")
STANDINGS = {int(standing): standing for standing in Standing}
UNUSED = -1.0
MOST = 100


class SemaphoreWire:
    """What a semaphore's script is sent, and what its reply means."""

    def __init__(self, settings: SemaphoreSettings) -> None:
        self.name = settings.name
        self.script = semaphore_script()
        prefix = f"steindamm:{{{settings.name}}}:semaphore"
        self.keys = (prefix, f"{prefix}:leases", f"{prefix}:listening", f"{prefix}:away", f"{prefix}:present")
        self.terms = semaphore_terms(settings)
        self.identity = (prefix, self.terms)

    def encoded(self, requests: list[Request], *, counted: bool) -> tuple[Any, ...]:
        """The script's arguments."""
        return (
            TERMS.pack(*self.terms, counted),
            b"".join(REQUEST.pack(what, number, stay, slack) for what, _, number, stay, slack in requests),
            *(request.asker.id for request in requests),
        )

    def decoded(self, reply: Reply) -> list[Place]:
        """One place for each request."""
        numbers = iter(reply)
        try:
            return [
                Place(STANDINGS[standing], number, wait)
                for standing, number, wait in zip(numbers, numbers, numbers, strict=True)
            ]
        except KeyError:
            raise LimiterUnavailableError(self.name, "malformed reply") from None

    def interval(self, ticket: Ticket) -> float:
        """Seconds from one renewal to the next."""
        lasts = self.terms.lease if ticket.holds else self.terms.presence
        return lasts / MICROSECONDS / 3

    def settle(self, ticket: Ticket, place: Place, asked_at: float) -> None:
        """Tell a ticket where it stands; what it was told counts from when it asked."""
        if place.standing is Standing.HOLDING:
            ticket.good_until = asked_at + self.terms.lease / MICROSECONDS
            ticket.hand(place.number)
        elif place.standing is Standing.WAITING:
            ticket.good_until = asked_at + self.terms.presence / MICROSECONDS
            ticket.stand(place.number)
        elif ticket.holds:
            ticket.lost = True

    def lost(self, ticket: Ticket, error: LimiterUnavailableError) -> None:
        """Say that a slot was not given back: it comes back when its lease ends."""
        logger.warning("limiter %r: slot %s is not released before its lease ends: %s", self.name, ticket.id, error)


def undoing(request: Request, place: Place) -> Request | None:
    """The request that takes back what was given to an asker that has gone."""
    if request.what is What.LEAVE or place.standing is Standing.OUT:
        return None
    return Request(What.LEAVE, request.asker, UNUSED)


class SyncRedisSemaphore:
    """A semaphore asked by threads."""

    def __init__(self, link: SyncLink, wire: SemaphoreWire) -> None:
        self._link = link
        self._wire = wire
        self._sharing = SyncSharing(self._call, self._undo)
        self.interval = wire.interval

    def enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        """Ask for a slot, or a place in the line; the ticket then knows where it stands."""
        if stay is Stay.LISTENING:
            hearing = self._link.hearing
            hearing.tickets[ticket.id] = ticket
            if not hearing.is_up:
                place = self._enter(ticket, number, Stay.NO, 0.0)
                if place.standing is Standing.HOLDING:
                    return place
                hearing.tickets[ticket.id] = ticket
                hearing.start(self._wire.name)
        return self._enter(ticket, number, stay, slack)

    def _enter(self, ticket: Ticket, number: float, stay: Stay, slack: float) -> Place:
        asked_at = monotonic()
        try:
            place = self._sharing.ask(Request(What.ENTER, ticket, number, stay, slack))
        except BaseException:
            self._link.hearing.tickets.pop(ticket.id, None)
            raise
        self._wire.settle(ticket, place, asked_at)
        if place.standing is not Standing.WAITING:
            self._link.hearing.tickets.pop(ticket.id, None)
        if place.standing is Standing.HOLDING or stay is Stay.LISTENING:
            SYNC_WATCH.add(ticket, self)
        return place

    def give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, unless a slot has come meanwhile."""
        asked_at = monotonic()
        try:
            place = self._sharing.ask(Request(What.GIVE_UP, ticket))
        finally:
            if not ticket.holds:
                self._forget(ticket)
        self._wire.settle(ticket, place, asked_at)
        if place.standing is Standing.HOLDING:
            SYNC_WATCH.add(ticket, self)
        return place

    def leave(self, ticket: Ticket, *, used: bool = True) -> None:
        """Give the slot, or the place in the line, back."""
        self._forget(ticket)
        if not ticket.is_ours:
            return
        try:
            self._sharing.ask(Request(What.LEAVE, ticket, ticket.held_for if used else UNUSED))
        except LimiterUnavailableError as error:
            self._wire.lost(ticket, error)

    def renew(self, tickets: list[Ticket]) -> None:
        """Hold on to what the tickets hold or wait for."""
        for first in range(0, len(tickets), MOST):
            some = tickets[first : first + MOST]
            asked_at = monotonic()
            places = self._call([Request(What.RENEW, ticket, ticket.number) for ticket in some])
            for ticket, place in zip(some, places, strict=True):
                self._wire.settle(ticket, place, asked_at)

    def _forget(self, ticket: Ticket) -> None:
        SYNC_WATCH.remove(ticket)
        self._link.hearing.tickets.pop(ticket.id, None)

    def _call(self, requests: list[Request]) -> list[Place]:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self._link.client))
        return wire.decoded(self._link.run(wire.name, wire.script, wire.keys, args, 3 * len(requests)))

    def _undo(self, request: Request, place: Place) -> None:
        back = undoing(request, place)
        if back:
            self._sharing.ask(back)


class AsyncRedisSemaphore:
    """A semaphore asked by the tasks of one event loop."""

    def __init__(self, link: AsyncLink, wire: SemaphoreWire) -> None:
        self._link = link
        self._wire = wire
        self._sharing = AsyncSharing(self._call, self._undo)
        self.interval = wire.interval

    async def enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        """Ask for a slot, or a place in the line; the ticket then knows where it stands."""
        if stay is Stay.LISTENING:
            hearing = self._link.hearing
            hearing.tickets[ticket.id] = ticket
            if not hearing.is_up:
                place = await self._enter(ticket, number, Stay.NO, 0.0)
                if place.standing is Standing.HOLDING:
                    return place
                hearing.tickets[ticket.id] = ticket
                await hearing.start(self._wire.name)
        return await self._enter(ticket, number, stay, slack)

    async def _enter(self, ticket: Ticket, number: float, stay: Stay, slack: float) -> Place:
        asked_at = monotonic()
        try:
            place = await self._sharing.ask(Request(What.ENTER, ticket, number, stay, slack))
        except BaseException:
            self._link.hearing.tickets.pop(ticket.id, None)
            raise
        self._wire.settle(ticket, place, asked_at)
        if place.standing is not Standing.WAITING:
            self._link.hearing.tickets.pop(ticket.id, None)
        if place.standing is Standing.HOLDING or stay is Stay.LISTENING:
            async_watch().add(ticket, self)
        return place

    async def give_up(self, ticket: Ticket) -> Place:
        """Stop waiting, unless a slot has come meanwhile."""
        asked_at = monotonic()
        try:
            place = await self._sharing.ask(Request(What.GIVE_UP, ticket))
        finally:
            if not ticket.holds:
                self._forget(ticket)
        self._wire.settle(ticket, place, asked_at)
        if place.standing is Standing.HOLDING:
            async_watch().add(ticket, self)
        return place

    async def leave(self, ticket: Ticket, *, used: bool = True) -> None:
        """Give the slot, or the place in the line, back."""
        self._forget(ticket)
        if not ticket.is_ours:
            return
        try:
            await self._sharing.ask(Request(What.LEAVE, ticket, ticket.held_for if used else UNUSED))
        except LimiterUnavailableError as error:
            self._wire.lost(ticket, error)

    async def renew(self, tickets: list[Ticket]) -> None:
        """Hold on to what the tickets hold or wait for."""
        for first in range(0, len(tickets), MOST):
            some = tickets[first : first + MOST]
            asked_at = monotonic()
            places = await self._call([Request(What.RENEW, ticket, ticket.number) for ticket in some])
            for ticket, place in zip(some, places, strict=True):
                self._wire.settle(ticket, place, asked_at)

    def _forget(self, ticket: Ticket) -> None:
        async_watch().remove(ticket)
        self._link.hearing.tickets.pop(ticket.id, None)

    async def _call(self, requests: list[Request]) -> list[Place]:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self._link.client))
        return wire.decoded(await self._link.run(wire.name, wire.script, wire.keys, args, 3 * len(requests)))

    async def _undo(self, request: Request, place: Place) -> None:
        back = undoing(request, place)
        if back:
            await self._call([back])


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
