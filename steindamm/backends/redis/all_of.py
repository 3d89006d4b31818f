"""Several limits at once in Redis: one call to the script that looks at all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from struct import Struct
from time import monotonic
from typing import Any

from steindamm.backends.redis.bucket import TERMS as BUCKET_TERMS
from steindamm.backends.redis.bucket import BucketWire
from steindamm.backends.redis.links import AsyncLink, Reply, SyncLink, counts_listeners
from steindamm.backends.redis.scripts import all_of_script
from steindamm.backends.redis.semaphore import TERMS as SEMAPHORE_TERMS
from steindamm.backends.redis.semaphore import RedisSemaphore, SemaphoreWire
from steindamm.backends.redis.sharing import AsyncSharing, SyncSharing
from steindamm.backends.terms import bucket_terms, semaphore_terms
from steindamm.errors import LimiterUnavailableError
from steindamm.rules import bucket
from steindamm.rules.all_of import Decision, Request, Verdict
from steindamm.rules.semaphore import Place, Standing
from steindamm.settings import BucketSettings, SemaphoreSettings
from steindamm.tickets import Ticket

TIMES = Struct("<5d")
ASK = Struct("<2d")
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
        self.kinds = "".join("b" if isinstance(each, BucketSettings) else "s" for each in settings)
        self.identity = tuple(wire.identity for wire in wires)
        self.size = 3 + 2 * len(wires)

    def encoded(self, requests: list[Request], *, counted: bool) -> tuple[Any, ...]:
        """The script's arguments."""
        askers = [ask.asker.id for request in requests for ask in request.asks if ask.asker is not None]
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
    times = TIMES.pack(request.accept, request.horizon, request.stay, request.slack, request.just_look)
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
        self._turns = [(index, limits[index].turns) for index, kind in enumerate(wire.kinds) if kind == "b"]

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
                semaphore.entered(ticket, Place(Standing.WAITING, given, decision.wait), request.stay, asked_at)
            else:
                semaphore.entered(ticket, Place(Standing.HOLDING, given, 0.0), request.stay, asked_at)

    def _leave_later(self, request: Request) -> None:
        """Nobody knows what was given: it is given back as soon as there is somebody who takes it."""
        for _, ticket, semaphore in self._tickets(request):
            semaphore.leave_later(ticket)

    def _is_late(self, request: Request, decision: Decision, asked_at: float) -> bool:
        """Whether a lease may be over before its holder has heard of it."""
        slot = Place(Standing.HOLDING, 0.0, 0.0)
        return decision.verdict is Verdict.GRANTED and any(
            semaphore.is_late(slot, asked_at) for _, _, semaphore in self._tickets(request)
        )

    def _gifts(self, request: Request, decision: Decision) -> Iterator[tuple[Any, bucket.Request]]:
        for limit, ask, given in zip(self._limits, request.asks, decision.given, strict=True):
            if ask.asker is not None or not given:
                continue
            if decision.verdict is Verdict.GRANTED:
                yield limit, bucket.Request(bucket.What.GIVE_BACK, ask.cost, turn=given)
            elif not ask.turn:
                yield limit, bucket.Request(bucket.What.GIVE_BOOKING_BACK, ask.cost, turn=given)


class SyncRedisAllOf(RedisAllOf):
    """Several limits asked by threads."""

    def __init__(self, link: SyncLink, wire: AllOfWire, limits: Sequence[Any]) -> None:
        super().__init__(link, wire, limits)
        self._sharing = SyncSharing(self._call, self.give_tokens_back)

    def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        if request.just_look:
            return self._sharing.ask(request)
        self._asking(request)
        asked_at = monotonic()
        try:
            decision = self._sharing.ask(request)
        except LimiterUnavailableError:
            self._leave_later(request)
            raise
        if self._is_late(request, decision, asked_at):
            self._leave_later(request)
            self.give_tokens_back(request, decision)
            return come_again(request)
        self._asked(request, decision, asked_at)
        return decision

    def _call(self, requests: list[Request]) -> list[Decision]:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self.link.client))
        reply = self.link.run(wire.name, wire.script, wire.keys, args, wire.size * len(requests))
        return self._heard(wire.decoded(reply))

    def give_tokens_back(self, request: Request, decision: Decision) -> None:
        """Return the tokens, or the turn, that a request was given; a semaphore's asker leaves by itself."""
        for limit, gift in self._gifts(request, decision):
            limit.ask(gift)


class AsyncRedisAllOf(RedisAllOf):
    """Several limits asked by the tasks of one event loop."""

    def __init__(self, link: AsyncLink, wire: AllOfWire, limits: Sequence[Any]) -> None:
        super().__init__(link, wire, limits)
        self._sharing = AsyncSharing(self._call, self.give_tokens_back)

    async def ask(self, request: Request) -> Decision:
        """Decide on one request; the tickets then know where they stand."""
        if request.just_look:
            return await self._sharing.ask(request)
        self._asking(request)
        asked_at = monotonic()
        try:
            decision = await self._sharing.ask(request)
        except LimiterUnavailableError:
            self._leave_later(request)
            raise
        if self._is_late(request, decision, asked_at):
            self._leave_later(request)
            await self.give_tokens_back(request, decision)
            return come_again(request)
        self._asked(request, decision, asked_at)
        return decision

    async def _call(self, requests: list[Request]) -> list[Decision]:
        wire = self._wire
        args = wire.encoded(requests, counted=counts_listeners(self.link.client))
        reply = await self.link.run(wire.name, wire.script, wire.keys, args, wire.size * len(requests))
        return self._heard(wire.decoded(reply))

    async def give_tokens_back(self, request: Request, decision: Decision) -> None:
        """Return the tokens, or the turn, that a request was given; a semaphore's asker leaves by itself."""
        for limit, gift in self._gifts(request, decision):
            await limit.ask(gift)


def come_again(request: Request, wait: float = 0.0) -> Decision:
    """The answer where nothing was decided: ask once more."""
    nothing = (0.0,) * len(request.asks)
    return Decision(Verdict.WAITING, 0, wait, nothing, nothing)
