"""Limiters on a server that the test may end, told what to do without it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from support.buckets import call
from support.servers import Server

HOUR = 3_600.0
NUMBERS = iter(range(1_000_000))


@dataclass
class Limiters:
    """Sync or async limiters on a server that the test may end."""

    asynchronous: bool
    url: str

    def bucket(self, choice: Any = "raise", **settings: Any) -> Any:
        kind = AsyncTokenBucket if self.asynchronous else SyncTokenBucket
        settings = {"refill_frequency": HOUR, **settings}
        return kind(f"mortal-{next(NUMBERS)}", connection=self.url, on_unavailable=choice, **settings)

    def semaphore(self, choice: Any = "raise", **settings: Any) -> Any:
        """Short leases: what could not be given back is not tried again for long."""
        kind = AsyncSemaphore if self.asynchronous else SyncSemaphore
        settings = {"expiry": 1, **settings}
        return kind(f"mortal-{next(NUMBERS)}", connection=self.url, on_unavailable=choice, **settings)

    def local_bucket(self, **settings: Any) -> Any:
        kind = AsyncTokenBucket if self.asynchronous else SyncTokenBucket
        return kind(f"local-{next(NUMBERS)}", **{"refill_frequency": HOUR, **settings})

    def local_semaphore(self, **settings: Any) -> Any:
        return (AsyncSemaphore if self.asynchronous else SyncSemaphore)(f"local-{next(NUMBERS)}", **settings)


async def back(server: Server, limiter: Any) -> None:
    """Start the server again, and wait until the limiter has noticed."""
    server.start()
    for _ in range(200):
        await asyncio.sleep(0.05)
        if (permit := await call(limiter.try_acquire)) and not permit.without_backend:
            if hasattr(limiter, "release"):
                await call(limiter.release, permit)
            return
    raise AssertionError("it has not noticed")
