"""Several limits in both homes of the rules, at times that the test sets, and in the same states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import redis

from steindamm.backends.redis.all_of import packed
from steindamm.backends.redis.scripts import BUCKET, BUCKET_ALONE
from steindamm.rules import bucket, changes, deciding, semaphore
from steindamm.rules.all_of import BucketPart, Decision, Request, SemaphorePart, decide
from steindamm.rules.bucket import BucketState, BucketTerms
from steindamm.rules.semaphore import SemaphoreState, SemaphoreTerms
from steindamm.rules.semaphore_changes import change as change_semaphore
from support.buckets import LIVE, LIVE_FIELDS
from support.buckets import STATE as BUCKET_STATE
from support.semaphores import LIVE as SEMAPHORE_LIVE
from support.semaphores import STATE as SEMAPHORE_STATE
from support.semaphores import keys_of

LUA = Path(__file__).parents[2] / "lua"
CLOCK = "local function now_us() return tonumber(KEYS[#KEYS]) end"
FIELDS = ("line", "pace", "grid", "granted", "deferred", "refused", "waited")
FOREVER = 9e15
BUCKET_TERMS, BUCKET_REQUEST = Struct("<6d"), Struct("<5d")
SEMAPHORE_TERMS, SEMAPHORE_REQUEST = Struct("<4d"), Struct("<4d")


class Scripts(NamedTuple):
    """The hashes of the scripts, with a clock of the test's own: the last of the keys."""

    all_of: str
    bucket: str
    change: str
    semaphore: str
    change_semaphore: str

    @classmethod
    def loaded(cls, admin: redis.Redis) -> Scripts:
        def load(*parts: str) -> str:
            return str(admin.script_load("\n".join([CLOCK, *((LUA / f"{part}.lua").read_text() for part in parts)])))

        return cls(
            load(*BUCKET, "semaphore_rules", "all_of_rules", "all_of"),
            load(*BUCKET_ALONE),
            load(*BUCKET, "bucket_change"),
            load("semaphore_at_once", "semaphore_rules", "semaphore"),
            load("semaphore_rules", "semaphore_change"),
        )


@dataclass
class Bucket:
    """A token bucket in the Python."""

    terms: BucketTerms
    state: BucketState | None = None
    kind = "b"

    def part(self, now: float) -> BucketPart:
        return BucketPart(self.terms, self.state or BucketState(self.terms, now), now)

    def keep(self, part: BucketPart) -> None:
        if part.touched:
            self.state = part.state

    def ask(self, now: float, request: bucket.Request) -> bucket.Decision:
        self.state = self.state or BucketState(self.terms, now)
        return deciding.decide(self.terms, self.state, now, request)

    def change(self, now: float, wanted: changes.Change) -> None:
        self.state = self.state or BucketState(self.terms, now)
        changes.change(self.terms, self.state, now, wanted)

    def known(self) -> Any:
        """What is known of it, as `bucket_in_lua` reads it."""
        state = self.state
        if state is None:
            return None
        live = state.live and tuple(float(getattr(state.live, field)) for field in LIVE_FIELDS)
        return _with_its_grid(self.terms, tuple(float(getattr(state, field)) for field in FIELDS), live)

    def keys(self, name: str) -> list[str]:
        return [f"steindamm:{{{name}}}:bucket"]

    def packed_terms(self) -> bytes:
        return BUCKET_TERMS.pack(*self.terms)


@dataclass
class Semaphore:
    """A semaphore in the Python."""

    terms: SemaphoreTerms
    state: SemaphoreState | None = None
    kind = "s"

    def part(self, now: float) -> SemaphorePart:
        return SemaphorePart(self.terms, self.state or SemaphoreState(), now)

    def keep(self, part: SemaphorePart) -> None:
        if part.touched:
            self.state = part.state

    def ask(self, now: float, request: semaphore.Request) -> semaphore.Place:
        self.state = self.state or SemaphoreState()
        place, _ = semaphore.decide(self.terms, self.state, now, request)
        return place

    def change(self, now: float, wanted: changes.Change) -> None:
        self.state = self.state or SemaphoreState()
        change_semaphore(self.terms, self.state, now, wanted)

    def known(self) -> Any:
        """What is known of it, as `semaphore_in_lua` reads it."""
        state = self.state
        if state is None:
            return None
        numbers = (
            state.capacity, len(state.leases), len(state.listening), len(state.present), state.earliest, state.fading,
            state.seen, state.fence, state.arrivals, state.mean,
            state.granted, state.deferred, state.refused, state.waited,
        )  # fmt: skip
        lines = [(waiter, number) for number, waiter in state.listening], [(w, n) for n, w in state.away]
        present = {waiter: end for waiter, (end, _) in state.present.items()}
        live = state.live and (state.live.reopens, state.live.capacity, state.live.set_at)
        return tuple(map(float, numbers)), dict(state.leases), *lines, present, live

    def keys(self, name: str) -> list[str]:
        return keys_of(name)

    def packed_terms(self) -> bytes:
        return SEMAPHORE_TERMS.pack(*self.terms, 0.0)


Limit = Bucket | Semaphore


def ask_all(
    limits: Sequence[Limit], now: float, request: Request, hand: Callable[[Any], object] = lambda _: None
) -> Decision:
    """Decide in the Python, as a backend does; those who were handed a slot meanwhile are told."""
    parts = [limit.part(now) for limit in limits]
    decision = decide(parts, request)
    for limit, part in zip(limits, parts, strict=True):
        limit.keep(part)  # type: ignore[arg-type]
        for waiter, _ in getattr(part, "handed", ()):
            hand(waiter)
    return decision


def as_reply(decision: Decision) -> list[int]:
    """What the script says of it."""
    verdict, which, wait, given, changed = decision
    told = -1 if wait == math.inf else math.ceil(min(wait, FOREVER))
    return [verdict, which, told, *(math.ceil(min(each, FOREVER)) for each in given), *map(math.ceil, changed)]


class InLua:
    """The same limits on a server: each call is one more in the pipeline."""

    def __init__(self, admin: redis.Redis, scripts: Scripts, limits: Sequence[Limit], name: str) -> None:
        self._pipeline = admin.pipeline(transaction=False)
        self._scripts = scripts
        self._limits = limits
        self._keys = [limit.keys(f"{name}-{index}") for index, limit in enumerate(limits)]

    def ask_all(self, now: int, requests: Sequence[Request]) -> None:
        keys = [*(key for keys in self._keys for key in keys), now]
        kinds = "".join(limit.kind for limit in self._limits)
        terms = b"".join(limit.packed_terms() for limit in self._limits)
        askers = [ask.asker for request in requests for ask in request.asks if ask.asker is not None]
        self._pipeline.evalsha(
            self._scripts.all_of, len(keys), *keys, kinds, terms, b"".join(map(packed, requests)), *askers
        )

    def ask(self, index: int, now: int, request: bucket.Request | semaphore.Request) -> None:
        keys, terms = [*self._keys[index], now], self._limits[index].packed_terms()
        if isinstance(request, bucket.Request):
            self._pipeline.evalsha(self._scripts.bucket, len(keys), *keys, terms, BUCKET_REQUEST.pack(*request))
        else:
            what, asker, *rest = request
            numbers = SEMAPHORE_REQUEST.pack(what, *rest)
            self._pipeline.evalsha(self._scripts.semaphore, len(keys), *keys, terms, numbers, asker)

    def change(self, index: int, now: int, wanted: changes.Change) -> None:
        keys, terms = [*self._keys[index], now], self._limits[index].packed_terms()
        numbers = Struct(f"<{len(wanted.numbers)}d").pack(*wanted.numbers)
        script = self._scripts.change if self._limits[index].kind == "b" else self._scripts.change_semaphore
        self._pipeline.evalsha(script, len(keys), *keys, terms, wanted.kind, numbers, wanted.note)

    def read(self) -> None:
        """Read all that is known."""
        for keys in self._keys:
            self._pipeline.get(keys[0])
            for key in keys[1:5]:
                self._pipeline.zrange(key, 0, -1, withscores=True)

    def end(self) -> list[Any]:
        """Make the calls, and leave nothing behind."""
        self._pipeline.delete(*(key for keys in self._keys for key in keys))
        replies = self._pipeline.execute()
        return list(replies[:-1])

    def known(self, replies: list[Any]) -> list[Any]:
        """What `read` has read, one for each limit."""
        reading = iter(replies)
        return [
            _bucket(limit.terms, next(reading)) if isinstance(limit, Bucket) else _semaphore(reading)
            for limit in self._limits
        ]


def _bucket(terms: BucketTerms, state: bytes | None) -> Any:
    if state is None:
        return None
    size = BUCKET_STATE.size
    live = LIVE.unpack(state[size : size + LIVE.size]) if len(state) > size else None
    return _with_its_grid(terms, BUCKET_STATE.unpack(state[:size]), live)


def _with_its_grid(terms: BucketTerms, state: tuple[float, ...], live: Any) -> Any:
    """The grid of a full bucket begins when it is next taken from: until then it means nothing."""
    capacity = live[LIVE_FIELDS.index("capacity")] if live else -1.0
    line, pace, grid, *counts = state
    is_full = min(line, pace) >= (capacity if capacity >= 0 else terms.capacity)
    return line, pace, 0.0 if is_full else grid, *counts, live


def _semaphore(reading: Any) -> Any:
    state = next(reading)
    leases, listening, away, present = ([(member.decode(), score) for member, score in next(reading)] for _ in range(4))
    if state is None:
        return None
    size = SEMAPHORE_STATE.size
    live = SEMAPHORE_LIVE.unpack(state[size : size + SEMAPHORE_LIVE.size]) if len(state) > size else None
    return SEMAPHORE_STATE.unpack(state[:size])[:14], dict(leases), listening, away, dict(present), live
