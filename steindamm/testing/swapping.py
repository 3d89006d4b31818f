"""Lets all limiters of this process ask other backends for a while."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any
from unittest.mock import patch

from steindamm.async_all_of import AsyncAllOf
from steindamm.async_semaphore import AsyncLocalSemaphore, AsyncRedisSemaphore
from steindamm.async_token_bucket import AsyncLocalTokenBucket, AsyncRedisTokenBucket
from steindamm.backends.memory import Memory
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOf
from steindamm.sync_all_of import SyncAllOf
from steindamm.sync_semaphore import SyncLocalSemaphore, SyncRedisSemaphore
from steindamm.sync_token_bucket import SyncLocalTokenBucket, SyncRedisTokenBucket
from steindamm.testing.backends import AwaitedAllOf, AwaitedBucket, AwaitedSemaphore
from steindamm.testing.limits import Limits
from steindamm.token_bucket import TokenBucket

SYNC = (SyncLocalTokenBucket, SyncRedisTokenBucket, SyncLocalSemaphore, SyncRedisSemaphore, SyncAllOf)
ASYNC = (AsyncLocalTokenBucket, AsyncRedisTokenBucket, AsyncLocalSemaphore, AsyncRedisSemaphore, AsyncAllOf)
AWAITED = {TokenBucket: AwaitedBucket, Semaphore: AwaitedSemaphore, AllOf: AwaitedAllOf}

_unused: list[Memory] = []
"""Memories of tests that are over; most come one after the other, and one serves them all."""


class Swapped:
    """The backends that limiters ask instead of their own: one for all that have the same settings.

    Parameters:
        backends: The class of the backend for each kind of limiter.
        memory: What they share.
        limits: Counts what they give.
    """

    def __init__(self, backends: dict[type, Callable[..., Any]], memory: Memory, limits: Limits) -> None:
        self._backends = backends
        self._memory = memory
        self._limits = limits
        self._made: dict[Hashable, Any] = {}

    def of_sync(self, limiter: Any) -> Any:
        """The backend of a sync limiter."""
        settings = _settings_of(limiter)
        return self._one(
            "sync", settings, lambda: self._backends[_kind_of(limiter)](settings, self._memory, self._limits)
        )

    def of_async(self, limiter: Any) -> Any:
        """The same one, asked by tasks."""
        settings = _settings_of(limiter)
        return self._one(
            "async", settings, lambda: AWAITED[_kind_of(limiter)](settings, self._memory, self.of_sync(limiter))
        )

    def _one(self, way: str, settings: Hashable, make: Callable[[], Any]) -> Any:
        return self._made.get((way, settings)) or self._made.setdefault((way, settings), make())


def _kind_of(limiter: Any) -> Any:
    return next(kind for kind in AWAITED if isinstance(limiter, kind))


def _settings_of(limiter: Any) -> Any:
    return tuple(each.settings for each in limiter._asked) if isinstance(limiter, AllOf) else limiter.settings


def _keep_own(limiter: Any, own: Any) -> None:
    """What a limiter that is made meanwhile asks later."""
    vars(limiter)["_backend"] = own


@contextmanager
def swapped(
    backends: dict[type, Callable[..., Any]], limits: Limits, clock: Callable[[], float] = monotonic
) -> Iterator[None]:
    """All limiters ask such backends, in which nothing has been taken, and nobody has patience at a semaphore."""
    memory = _unused.pop() if _unused else Memory()
    memory.clock = clock
    memory.sweep_at = 0.0
    for states in (memory.buckets, memory.semaphores, memory.turns, memory.untold):
        states.clear()
    stand_ins = Swapped(backends, memory, limits)
    with ExitStack() as stack:
        stack.callback(_unused.append, memory)
        stack.enter_context(patch.object(Semaphore, "_patience", lambda *_: 0.0))
        for kinds, chosen in ((SYNC, stand_ins.of_sync), (ASYNC, stand_ins.of_async)):
            for kind in kinds:
                stack.enter_context(patch.object(kind, "_backend", property(chosen, _keep_own), create=True))
        yield
