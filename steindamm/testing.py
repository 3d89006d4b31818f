"""Limiters for tests: no server, no waiting.

While one of the two context managers is entered, all limiters of this process behave differently, also those
that were made before with a ``connection``: none asks a server, and none waits.

- `instant_limiters`: all let everything start at once. For tests of what limited code does.
- `strict_limiters`: all limits hold, in memory and from their start, and whoever would have to wait is refused
  at once. For tests of what happens at a limit. Their time is the test's to advance.

As a fixture of pytest, for all tests of a module or a project:

    @pytest.fixture(autouse=True)
    def limits():
        with instant_limiters() as limits:
            yield limits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any
from unittest.mock import patch

from steindamm.async_semaphore import AsyncLocalSemaphore, AsyncRedisSemaphore
from steindamm.async_token_bucket import AsyncLocalTokenBucket, AsyncRedisTokenBucket
from steindamm.backends.memory import (
    AsyncMemoryBucket,
    AsyncMemorySemaphore,
    Memory,
    MemoryBucket,
    MemorySemaphore,
    monotonic_clock,
)
from steindamm.backends.terms import MICROSECONDS
from steindamm.checks import checked_seconds
from steindamm.rules.bucket import Decision, Request, Verdict, What
from steindamm.rules.semaphore import Place, Standing, Stay
from steindamm.semaphore import Semaphore
from steindamm.settings import BucketSettings, SemaphoreSettings
from steindamm.sync_semaphore import SyncLocalSemaphore, SyncRedisSemaphore
from steindamm.sync_token_bucket import SyncLocalTokenBucket, SyncRedisTokenBucket
from steindamm.tickets import Ticket

__all__ = ["Limits", "StrictLimits", "instant_limiters", "strict_limiters"]

SYNC = (SyncLocalTokenBucket, SyncRedisTokenBucket, SyncLocalSemaphore, SyncRedisSemaphore)
ASYNC = (AsyncLocalTokenBucket, AsyncRedisTokenBucket, AsyncLocalSemaphore, AsyncRedisSemaphore)


class Limits:
    """What all limiters have given while they were instant, or strict.

    Attributes:
        taken: Tokens (of a bucket), or slots (of a semaphore), by the limiter's name; what was given back
            without being used is not subtracted.
    """

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self._lock = Lock()

    def took(self, name: str, amount: float) -> None:
        """Count what a limiter gave."""
        with self._lock:
            self.taken[name] += amount  # type: ignore[assignment]


class StrictLimits(Limits):
    """Limits whose time goes on by itself, and faster where the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    def advance(self, seconds: float) -> None:
        """Let so much time pass for all limiters.

        Parameters:
            seconds: Not negative.
        """
        self._ahead += checked_seconds("seconds", seconds) * MICROSECONDS

    def now(self) -> float:
        """Microseconds on the limiters' clock."""
        return monotonic_clock() + self._ahead


@contextmanager
def instant_limiters() -> Iterator[Limits]:
    """All limiters let everything start at once, and ask no server.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> from steindamm.testing import instant_limiters
        >>> mail = SyncTokenBucket.from_rate("1/h", name="mail", connection="redis://not.there")
        >>> with instant_limiters() as limits:
        ...     for _ in range(100):
        ...         with mail:
        ...             pass
        ...     limits.taken["mail"]
        100.0
    """
    limits, memory = Limits(), _memory()
    with _standing_in(
        lambda settings: InstantBucket(settings, memory, limits),
        lambda settings: InstantSemaphore(settings, memory, limits),
    ):
        yield limits


@contextmanager
def strict_limiters() -> Iterator[StrictLimits]:
    """All limits hold in memory, nothing is taken at first, and whoever would have to wait is refused at once.

    Example:
        >>> from steindamm import MaxSleepExceededError, SyncTokenBucket
        >>> from steindamm.testing import strict_limiters
        >>> mail = SyncTokenBucket.from_rate("1/h", name="mail", connection="redis://not.there")
        >>> with strict_limiters() as limits:
        ...     with mail:
        ...         print("sent")
        ...     try:
        ...         mail.acquire()
        ...     except MaxSleepExceededError:
        ...         print("refused")
        ...     limits.advance(3600)
        ...     with mail:
        ...         print("sent")
        sent
        refused
        sent
    """
    limits = StrictLimits()
    memory = _memory(limits.now)
    with (
        patch.object(Semaphore, "_patience", lambda *_: 0.0),
        _standing_in(
            lambda settings: StrictBucket(settings, memory, limits),
            lambda settings: CountedSemaphore(settings, memory, limits),
        ),
    ):
        yield limits


class InstantBucket(MemoryBucket):
    """A bucket without a limit."""

    def __init__(self, settings: BucketSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory)
        self._limits = limits

    def ask(self, request: Request) -> Decision:
        """Grant it."""
        if request.what in (What.TAKE, What.COME_BACK):
            self._limits.took(self._name, request.cost)
        return Decision(Verdict.GRANTED, 0.0, 0.0)


class StrictBucket(MemoryBucket):
    """A bucket at which nobody waits."""

    def __init__(self, settings: BucketSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory)
        self._limits = limits

    def ask(self, request: Request) -> Decision:
        """Decide on it as for a caller that accepts no wait."""
        decision = super().ask(request._replace(accept=0.0))
        if request.what in (What.TAKE, What.COME_BACK) and decision.verdict is Verdict.GRANTED:
            self._limits.took(self._name, request.cost)
        return decision


class CountedSemaphore(MemorySemaphore):
    """A semaphore that counts the slots it gives."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory)
        self._limits = limits

    def enter_at_once(self, _: Ticket) -> bool:
        """Nobody takes the short way."""
        return False

    def enter(self, ticket: Ticket, number: float, stay: Stay, slack: float = 0.0) -> Place:
        """Ask for a slot."""
        place = super().enter(ticket, number, stay, slack)
        if place.standing is Standing.HOLDING:
            self._limits.took(self.name, 1.0)
        return place


class InstantSemaphore(CountedSemaphore):
    """A semaphore without a limit."""

    def __init__(self, settings: SemaphoreSettings, memory: Memory, limits: Limits) -> None:
        super().__init__(settings, memory, limits)
        self._terms = self._terms._replace(capacity=2**31)


class AwaitedBucket(AsyncMemoryBucket):
    """A bucket asked by tasks."""

    def __init__(self, settings: BucketSettings, bucket: MemoryBucket) -> None:
        super().__init__(settings, _MEMORY)
        self._bucket = bucket

    async def ask(self, request: Request) -> Decision:  # type: ignore[override]
        """Decide on one request."""
        return self._bucket.ask(request)


class AwaitedSemaphore(AsyncMemorySemaphore):
    """A semaphore asked by tasks."""

    def __init__(self, settings: SemaphoreSettings, semaphore: MemorySemaphore) -> None:
        super().__init__(settings, _MEMORY)
        self._semaphore = semaphore
        self.name = semaphore.name
        self.enter_at_once = semaphore.enter_at_once


@contextmanager
def _standing_in(
    bucket: Callable[[BucketSettings], Any], semaphore: Callable[[SemaphoreSettings], Any]
) -> Iterator[None]:
    """All limiters ask backends that these functions make, one for all limiters with the same settings."""
    made: dict[Any, Any] = {}

    def backend(limiter: Any) -> Any:
        settings = limiter.settings
        make = semaphore if isinstance(limiter, Semaphore) else bucket
        return made.get(settings) or made.setdefault(settings, make(settings))

    def awaited(limiter: Any) -> Any:
        key = "awaited", limiter.settings
        make = AwaitedSemaphore if isinstance(limiter, Semaphore) else AwaitedBucket
        return made.get(key) or made.setdefault(key, make(limiter.settings, backend(limiter)))

    def keep(limiter: Any, own: Any) -> None:
        """What a limiter that is made meanwhile asks later."""
        vars(limiter)["_backend"] = own

    with ExitStack() as stack:
        for kinds, chosen in ((SYNC, backend), (ASYNC, awaited)):
            for kind in kinds:
                stack.enter_context(patch.object(kind, "_backend", property(chosen, keep), create=True))
        yield


def _memory(clock: Callable[[], float] = monotonic_clock) -> Memory:
    """An empty memory; one serves all tests, which come one after the other."""
    _MEMORY.clock = clock
    _MEMORY.sweep_at = 0.0
    _MEMORY.buckets.clear()
    _MEMORY.semaphores.clear()
    _MEMORY.turns.clear()
    return _MEMORY


_MEMORY = Memory()
