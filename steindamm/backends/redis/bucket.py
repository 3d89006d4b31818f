"""A token bucket in Redis: requests to the script, decisions back, one call for all who ask together."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from struct import Struct
from typing import Any

from steindamm.backends.redis.connection import checked_connection
from steindamm.backends.redis.links import AsyncLink, Reply, SyncLink, async_link, checked_reply, sync_link
from steindamm.backends.redis.looking import look_at_bucket
from steindamm.backends.redis.scripts import bucket_change_script, bucket_look_script, bucket_script
from steindamm.backends.redis.sharing import AsyncSharing, SyncSharing
from steindamm.backends.terms import bucket_terms
from steindamm.errors import LimiterUnavailableError
from steindamm.loops import EachLoop
from steindamm.rules.bucket import Decision, Request, Verdict, What
from steindamm.rules.changes import Change, override_of
from steindamm.settings import BucketSettings
from steindamm.sleepers import Sleeper
from steindamm.state import TokenBucketState
from steindamm.turns import Turns, give_back_left_over, give_back_left_over_async

TERMS = Struct("<6d")
REQUEST = Struct("<5d")
VERDICTS = {int(verdict): verdict for verdict in Verdict}
TAKING = {What.TAKE, What.COME_BACK, What.LOOK}


class BucketWire:
    """What a bucket's script is sent, and what its reply means."""

    def __init__(self, settings: BucketSettings) -> None:
        self.name = settings.name
        self.script = bucket_script()
        self.change_script = bucket_change_script()
        self.look_script = bucket_look_script()
        self.keys = (f"steindamm:{settings.key}:bucket".encode(),)
        self.terms = bucket_terms(settings, clock_ahead=0.0)
        self._terms = TERMS.pack(*self.terms)
        self.identity = (*self.keys, self._terms)

    def encoded(self, requests: list[Request]) -> tuple[bytes, bytes]:
        """The script's arguments."""
        return self._terms, b"".join([REQUEST.pack(*request) for request in requests])

    def encoded_change(self, change: Change) -> tuple[bytes, ...]:
        """The arguments of the script that changes the bucket."""
        numbers = Struct(f"<{len(change.numbers)}d").pack(*change.numbers)
        return self._terms, change.kind.encode(), numbers, change.note

    def decoded(self, reply: Reply) -> list[Decision]:
        """One decision for each request."""
        changed = reply.pop() if len(reply) % 3 else 0
        decisions = []
        try:
            for at in range(0, len(reply), 3):
                verdict, wait, turn = reply[at : at + 3]
                decisions.append(Decision(VERDICTS[verdict], wait if wait >= 0 else math.inf, turn, changed))
        except KeyError:
            raise LimiterUnavailableError(self.name, "malformed reply") from None
        return decisions


class SyncRedisBucket:
    """A bucket asked by threads."""

    def __init__(self, link: SyncLink, wire: BucketWire) -> None:
        self.link = link
        self._wire = wire
        self._sharing = SyncSharing(self._call, self._undo)
        self.ask = self._sharing.ask
        self.turns = Turns()

    def _call(self, requests: list[Request]) -> list[Decision]:
        wire, args = self._wire, self._wire.encoded(self.turns.telling(requests))
        return self._read(self.link.run(wire.name, wire.script, wire.keys, args, 3 * len(requests)))

    def _read(self, reply: Reply) -> list[Decision]:
        decisions = self._wire.decoded(reply)
        self.turns.hear(decisions[0].changed)
        return decisions

    def command(self, request: Request) -> tuple[Any, ...]:
        """What asks the server, for one who sends it himself; `answer` reads the reply."""
        wire, args = self._wire, self._wire.encoded(self.turns.telling([request]))
        return "EVALSHA", wire.script.sha, len(wire.keys), *wire.keys, *args

    def answer(self, reply: Any) -> Decision:
        """What the reply to a `command` says.

        Raises:
            LimiterUnavailableError: It is no reply of the script.
        """
        return self._read(checked_reply(self._wire.name, reply, 3))[0]

    def numbers_for(self, wanted: BucketSettings) -> tuple[float, ...]:
        """What overrides its settings with these."""
        return override_of(self._wire.terms, bucket_terms(wanted, clock_ahead=0.0))

    def change(self, change: Change) -> None:
        """Make a change for all who share the bucket."""
        wire = self._wire
        (changed,) = self.link.run(wire.name, wire.change_script, wire.keys, wire.encoded_change(change), 1)
        self.turns.hear(changed)

    def look(self) -> TokenBucketState:
        """What can be seen of it now."""
        wire = self._wire
        reply = self.link.ask(wire.name, wire.look_script, wire.keys, ())
        return look_at_bucket(wire.name, wire.terms, reply)

    def _undo(self, request: Request, decision: Decision) -> None:
        if decision.verdict is Verdict.GRANTED and request.what in TAKING:
            self.turns.let_go(Sleeper(decision, request.cost))
            give_back_left_over(self.turns, self.ask)
        elif decision.verdict is Verdict.BOOKED:
            self.ask(Request(What.GIVE_BOOKING_BACK, request.cost, turn=decision.turn))


class AsyncRedisBucket:
    """A bucket asked by the tasks of one event loop."""

    def __init__(self, link: AsyncLink, wire: BucketWire) -> None:
        self.link = link
        self._wire = wire
        self._sharing = AsyncSharing(self._call, self._read, self._undo)
        self.ask = self._sharing.ask
        self.turns = Turns()

    def _call(self, requests: list[Request]) -> Awaitable[Reply]:
        wire, args = self._wire, self._wire.encoded(self.turns.telling(requests))
        return self.link.run(wire.name, wire.script, wire.keys, args, 3 * len(requests))

    def _read(self, reply: Reply) -> list[Decision]:
        decisions = self._wire.decoded(reply)
        self.turns.hear(decisions[0].changed)
        return decisions

    def numbers_for(self, wanted: BucketSettings) -> tuple[float, ...]:
        """What overrides its settings with these."""
        return override_of(self._wire.terms, bucket_terms(wanted, clock_ahead=0.0))

    async def change(self, change: Change) -> None:
        """Make a change for all who share the bucket."""
        wire = self._wire
        (changed,) = await self.link.run(wire.name, wire.change_script, wire.keys, wire.encoded_change(change), 1)
        self.turns.hear(changed)

    async def look(self) -> TokenBucketState:
        """What can be seen of it now."""
        wire = self._wire
        reply = await self.link.ask(wire.name, wire.look_script, wire.keys, ())
        return look_at_bucket(wire.name, wire.terms, reply)

    async def _undo(self, request: Request, decision: Decision) -> None:
        if decision.verdict is Verdict.GRANTED and request.what in TAKING:
            self.turns.let_go(Sleeper(decision, request.cost))
            await give_back_left_over_async(self.turns, self.ask)
        elif decision.verdict is Verdict.BOOKED:
            await self.ask(Request(What.GIVE_BOOKING_BACK, request.cost, turn=decision.turn))


def sync_bucket(connection: Any, settings: BucketSettings) -> SyncRedisBucket:
    """The bucket that all sync limiters of this name and these terms share."""
    checked_connection(connection, asynchronous=False)
    link, wire = sync_link(connection), BucketWire(settings)
    known: SyncRedisBucket | None = link.limiters.get(wire.identity)
    return known or link.limiters.setdefault(wire.identity, SyncRedisBucket(link, wire))


def async_buckets(connection: Any, settings: BucketSettings) -> EachLoop[AsyncRedisBucket]:
    """The buckets that all async limiters of this name and these terms share, one on each loop."""
    checked_connection(connection, asynchronous=True)
    wire = BucketWire(settings)

    def make() -> AsyncRedisBucket:
        link = async_link(connection)
        known: AsyncRedisBucket | None = link.limiters.get(wire.identity)
        return known or link.limiters.setdefault(wire.identity, AsyncRedisBucket(link, wire))

    return EachLoop(make)
