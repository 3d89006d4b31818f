"""Several limits of every kind, asked in one way: sync ones on threads, async ones directly."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import redis

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.backends.memory import MEMORY
from steindamm.semaphore import Semaphore
from support.buckets import call
from support.semaphores import META, STATE

NUMBERS = count(1)
HOUR = 3_600.0


@dataclass
class Kind:
    """One kind of limits: sync or async, in memory, on Valkey or on the cluster, there in one slot or in several."""

    asynchronous: bool
    connection: str | None
    admins: list[redis.Redis]
    group: str | None = None

    @property
    def local(self) -> bool:
        return self.connection is None

    @property
    def is_apart(self) -> bool:
        """Whether the keys lie in several slots."""
        return len(self.admins) > 1 and self.group is None

    def bucket(self, name: str | None = None, **settings: Any) -> Any:
        """A bucket that refills once an hour, where nothing else is said; without a name, one that nobody else has."""
        kind = AsyncTokenBucket if self.asynchronous else SyncTokenBucket
        settings = {"refill_frequency": HOUR, "group": self.group, **settings}
        return kind(name or f"part-{next(NUMBERS)}", connection=self.connection, **settings)

    def semaphore(self, name: str | None = None, **settings: Any) -> Any:
        kind = AsyncSemaphore if self.asynchronous else SyncSemaphore
        settings = {"group": self.group, **settings}
        return kind(name or f"part-{next(NUMBERS)}", connection=self.connection, **settings)

    def known(self, limiter: Any) -> Any:
        """All that is kept of a limiter."""
        if self.local:
            states = MEMORY.semaphores if isinstance(limiter, Semaphore) else MEMORY.buckets
            kept = states.by_name.get(limiter.name)
            state = getattr(kept, "state", kept)
            return state and [getattr(state, field) for field in state.__slots__ if field != "seen"]
        found = []
        for admin in self.admins:
            for key in sorted(admin.scan_iter(f"steindamm:{limiter.settings.key}:*", count=1000)):
                with suppress(redis.ResponseError):
                    found.append((key, _value(admin, key)))
        return found


def _value(admin: redis.Redis, key: bytes) -> Any:
    kind = admin.type(key)
    if kind == b"zset":
        return admin.zrange(key, 0, -1, withscores=True)
    if kind == b"hash":
        return admin.hgetall(key)
    packed = admin.get(key)
    if len(packed) != STATE.size:
        return packed
    return [number for field, number in zip(META, STATE.unpack(packed), strict=True) if field != "seen"]


async def tokens_left(bucket: Any) -> int:
    """How many tokens a bucket has, found out by taking them."""
    left = 0
    while await call(bucket(1).try_acquire) is not None:
        left += 1
    return left


async def slots_left(semaphore: Any) -> int:
    """How many slots are free, found out by taking and releasing them."""
    taken = []
    while (permit := await call(semaphore.try_acquire)) is not None:
        taken.append(permit)
    for permit in taken:
        await call(semaphore.release, permit)
    return len(taken)
