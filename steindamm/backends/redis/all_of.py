"""Several limits at once in Redis: one call to the script that looks at all of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any

from steindamm.backends.redis.bucket import TERMS as BUCKET_TERMS
from steindamm.backends.redis.bucket import BucketWire
from steindamm.backends.redis.links import AsyncLink, Reply, SyncLink, counts_listeners
from steindamm.backends.redis.scripts import all_of_script
from steindamm.backends.redis.semaphore import ONCE_MORE, RedisSemaphore, SemaphoreWire
from steindamm.backends.redis.semaphore import TERMS as SEMAPHORE_TERMS
from steindamm.backends.redis.sharing import AsyncSharing, SyncSharing
from steindamm.backends.terms import bucket_terms, semaphore_terms
from steindamm.background import in_background
from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError
from steindamm.rules.all_of import Decision, Request, Verdict, What, undoing
from steindamm.rules.semaphore import Place, Standing
from steindamm.settings import BucketSettings, SemaphoreSettings
from steindamm.tickets import Ticket

TIMES = Struct("<5d")
ASK = Struct("<2d")
BUCKET, SEMAPHORE = "b", "s"
NOBODY = "-"
VERDICTS = {int(verdict): verdict for verdict in Verdict}


class AllOfWire:
    """What the script of several limits is sent, and what its reply means.

    Parameters:
        settings: The limits'.
    """

    def __init__(self, settings: Sequence[BucketSettings | SemaphoreSettings]) -> None:
        self._settings = settings
        wires = [wire_of(each) for each in settings]
        self.name = " + ".join(each.name for each in settings)
        self.script = all_of_script()
        self.keys = tuple(key for wire in wires for key in wire.keys)
        self.kinds = "".join(BUCKET if isinstance(each, BucketSettings) else SEMAPHORE for each in settings)
        self.identity = tuple(wire.identity for wire in wires)
        self.size = 3 + 2 * len(wires)

    def encoded(self, requests: list[Request], *, counted: bool) -> tuple[Any, ...]:
        """The script's arguments."""
        askers = [
            ask.asker.id if ask.asker else NOBODY
            for request in requests
            for kind, ask in zip(self.kinds, request.asks, strict=True)
            if kind == SEMAPHORE
        ]
        terms = b"".join(_packed_terms(each, counted=counted) for each in self._settings)
        return self.kinds, terms, b"".join(map(packed, requests)), *askers

    def decoded(self, reply: Reply) -> list[Decision]:
        """One decision for each request."""
        limits = len(self.kinds)
        answers = (reply[at : at + self.size] for at in range(0, len(reply), self.size))
        try:
            return [
                Decision(
                    VERDICTS[verdict],
                    which,
                    wait if wait >= 0 else math.inf,
                    given=tuple(rest[:limits]),
                    changed=tuple(rest[limits:]),
                )
                for verdict, which, wait, *rest in answers
            ]
        except (KeyError, ValueError):
            raise LimiterUnavailableError(self.name, "malformed reply") from None


def wire_of(settings: BucketSettings | SemaphoreSettings) -> BucketWire | SemaphoreWire:
    """How one of the limits is asked alone."""
    return BucketWire(settings) if isinstance(settings, BucketSettings) else SemaphoreWire(settings)


def _packed_terms(settings: BucketSettings | SemaphoreSettings, *, counted: bool) -> bytes:
    if isinstance(settings, BucketSettings):
        return BUCKET_TERMS.pack(*bucket_terms(settings, clock_ahead=0.0))
    return SEMAPHORE_TERMS.pack(*semaphore_terms(settings), counted)


def packed(request: Request) -> bytes:
    """A request as the script reads it."""
    times = TIMES.pack(request.accept, request.horizon, request.stay, request.slack, request.what)
    return times + b"".join(ASK.pack(ask.cost, ask.turn) for ask in request.asks)


class RedisAllOf:
    """What several limits asked by threads and by tasks share: all that does not wait.

    Parameters:
        link: What reaches the server.
        wire: What their script is sent.
        limits: What decides on requests to each of them alone.
    """

    def __init__(self, link: Any, wire: AllOfWire, limits: Sequence[Any]) -> None:
        self.link = link
        self._wire = wire
        self._limits = tuple(limits)
        self._turns = [(index, limits[index].turns) for index, kind in enumerate(wire.kinds) if kind == BUCKET]

    def _tickets(self, request: Request) -> Iterator[tuple[int, Ticket, RedisSemaphore[Any]]]:
        for index, ask in enumerate(request.asks):
            if ask.asker is not None:
                yield index, ask.asker, self._limits[index]

    def _heard(self, decisions: list[Decision]) -> list[Decision]:
        """Those who sleep until a turn hear of it where the clock of its bucket was set anew."""
        for index, turns in self._turns:
            turns.hear(decisions[0].changed[index])
        return decisions

    def _asking(self, request: Request) -> None:
        """From now on a hand-over may come, which is sooner, maybe, than the reply."""
        for _, ticket, semaphore in self._tickets(request):
            if not ticket.fence:
                semaphore.entering(ticket, request.stay)

    def _asked(self, request: Request, decision: Decision, asked_at: float) -> None:
        for index, ticket, semaphore in self._tickets(request):
            given = decision.given[index]
            if not given:
                semaphore.forget(ticket)
            elif decision.verdict is Verdict.WAITING and index == decision.which:
                place = Place(Standing.WAITING, given, decision.wait, decision.changed[index])
                semaphore.entered(ticket, place, request.stay, asked_at)
            else:
                semaphore.entered(ticket, Place(Standing.HOLDING, given, 0.0), request.stay, asked_at)

    def _leave_later(self, request: Request, seconds: float = 0.0) -> None:
        """Nobody knows what was given: it is given back as soon as there is somebody who takes it."""
        for _, ticket, semaphore in self._tickets(request):
            semaphore.leave_later(ticket, seconds)

    def _is_late(self, request: Request, decision: Decision, asked_at: float) -> bool:
        """Whether a lease may be over before its holder has heard of it."""
        slot = Place(Standing.HOLDING, 0.0, 0.0)
        return decision.verdict is Verdict.GRANTED and any(
            semaphore.is_late(slot, asked_at) for _, _, semaphore in self._tickets(request)
        )

    def _giving_back(self, request: Request) -> None:
        for _, ticket, semaphore in self._tickets(request):
            semaphore.forget(ticket)

    def _not_given_back(self, request: Request, error: LimiterUnavailableError) -> None:
        for _, ticket, semaphore in self._tickets(request):
            semaphore.not_left(ticket, error)


class SyncRedisAllOf(RedisAllOf):
    """Several limits asked by threads."""

    def __init__(self, link: SyncLink, wire: AllOfWire, limits: Sequence[Any]) -> None:
        super().__init__(link, wire, limits)
        self._sharing = SyncSharing(self._call, self._undo)

    def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        self._asking(request)
        asked_at = monotonic()
        try:
            decision = self._sharing.ask(request)
        except LimiterUnavailableError:
            self._leave_later(request)
            raise
        if self._is_late(request, decision, asked_at):
            self.give_back(undoing(request, decision))
            return come_again(request)
        self._asked(request, decision, asked_at)
        return decision

    def look(self, request: Request) -> Decision:
        """What would be decided."""
        return self._sharing.ask(request)

    def give_back(self, request: Request) -> None:
        """Return what was given; the tickets stand nowhere any more. Slots are given back later if not now.

        A thread that is interrupted here has no second try: its tickets may know already that they are gone.
        """
        try:
            self._giving_back(request)
            if self._sharing.is_interrupted:
                self._leave_later(request)
                return
            self._sharing.ask(request)
        except LimiterUnavailableError as error:
            self._not_given_back(request, error)
        except BaseException:
            self._leave_later(request)
            raise

    def _call(self, requests: list[Request]) -> list[Decision]:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self.link.client))
        reply = self.link.run(wire.name, wire.script, wire.keys, args, wire.size * len(requests))
        return self._heard(wire.decoded(reply))

    def _undo(self, request: Request, decision: Decision) -> None:
        if request.what is What.TAKE:
            self.give_back(undoing(request, decision))


class AsyncRedisAllOf(RedisAllOf):
    """Several limits asked by the tasks of one event loop."""

    def __init__(self, link: AsyncLink, wire: AllOfWire, limits: Sequence[Any]) -> None:
        super().__init__(link, wire, limits)
        self._sharing = AsyncSharing(self._call, self._read, self._undo)

    async def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        self._asking(request)
        asked_at = monotonic()
        try:
            decision = await self._sharing.ask(request)
        except LimiterUnavailableError:
            self._leave_later(request)
            raise
        if self._is_late(request, decision, asked_at):
            await self.give_back(undoing(request, decision))
            return come_again(request)
        self._asked(request, decision, asked_at)
        return decision

    async def look(self, request: Request) -> Decision:
        """What would be decided."""
        return await self._sharing.ask(request)

    async def give_back(self, request: Request) -> None:
        """Return what was given; the tickets stand nowhere any more. Slots are given back later if not now."""
        self._giving_back(request)
        try:
            await self._sharing.ask(request)
        except LimiterUnavailableError as error:
            self._not_given_back(request, error)

    def abandon(self, request: Request) -> None:
        """The same, where nobody can await it; where no loop runs any more, leases end by themselves."""
        if asyncio._get_running_loop() is not None:
            in_background(self._give_back_twice(request))

    async def _give_back_twice(self, request: Request) -> None:
        """The question that was cut short may come to the server after the first time."""
        await self.give_back(request)
        self._leave_later(request, ONCE_MORE)

    async def _call(self, requests: list[Request]) -> Reply:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self.link.client))
        reply: Reply = await self.link.run(wire.name, wire.script, wire.keys, args, wire.size * len(requests))
        return reply

    def _read(self, reply: Reply) -> list[Decision]:
        return self._heard(self._wire.decoded(reply))

    async def _undo(self, request: Request, decision: Decision) -> None:
        if request.what is What.TAKE:
            await self.give_back(undoing(request, decision))


def come_again(request: Request, wait: float = 0.0) -> Decision:
    """The answer where nothing was decided: ask once more."""
    nothing = (0.0,) * len(request.asks)
    return Decision(Verdict.WAITING, 0, wait, nothing, nothing)
