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

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from steindamm.permits import Permit
from steindamm.running import running
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOf
from steindamm.testing.backends import (
    InstantAllOf,
    InstantBucket,
    InstantSemaphore,
    StrictAllOf,
    StrictBucket,
    StrictSemaphore,
)
from steindamm.testing.limits import Limits, StrictLimits
from steindamm.testing.swapping import swapped
from steindamm.token_bucket import TokenBucket

__all__ = ["Limits", "StrictLimits", "as_async_job", "as_job", "instant_limiters", "strict_limiters"]


@contextmanager
def as_job(limiter: Any) -> Iterator[Permit]:
    """Code that asks for `current_permit` runs as if in a job that a sync limiter has let start.

    Example:
        >>> from steindamm import SyncTokenBucket, current_permit
        >>> from steindamm.testing import as_job, instant_limiters
        >>> with instant_limiters(), as_job(SyncTokenBucket("model")) as permit:
        ...     current_permit() is permit
        True

    Parameters:
        limiter: It is asked as ``with limiter:`` asks it; several limits as `steindamm.all_of` makes them.
    """
    with limiter as permit, running(lambda: permit):
        yield permit


@asynccontextmanager
async def as_async_job(limiter: Any) -> AsyncIterator[Permit]:
    """The twin of `as_job`, with an async limiter.

    Example:
        >>> import asyncio
        >>> from steindamm import AsyncTokenBucket, current_permit
        >>> from steindamm.testing import as_async_job
        >>> model = AsyncTokenBucket("their async model", capacity=1_000)
        >>> async def main():
        ...     async with as_async_job(model(100)):
        ...         return current_permit().cost
        >>> asyncio.run(main())
        100.0

    Parameters:
        limiter: An async one.
    """
    async with limiter as permit:
        with running(lambda: permit):
            yield permit


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
    limits = Limits()
    with swapped({TokenBucket: InstantBucket, Semaphore: InstantSemaphore, AllOf: InstantAllOf}, limits):
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
    with swapped({TokenBucket: StrictBucket, Semaphore: StrictSemaphore, AllOf: StrictAllOf}, limits, limits.now):
        yield limits
