"""A process of many callers at one bucket and one semaphore, who write down what they do.

``python -m chaos.callers URL FOLDER SECONDS WAY`` with threads (WAY is ``sync``), tasks (``async``), or threads at
limiters that are no good (``naive``).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from chaos.journal import Journal
from chaos.naive import LeaselessSemaphore, NaiveBucket
from chaos.scenes import GROUP
from steindamm import AsyncSemaphore, AsyncTokenBucket, LimiterUnavailableError, SyncSemaphore, SyncTokenBucket

RATE, CAPACITY = 100.0, 10
"""Of the bucket: starts a second, and at once."""
SLOTS, LEASE = 5, 1.5
"""Of the semaphore: how many at once, and for how many seconds without renewal."""
STARTING, HOLDING = 15, 6
"""Callers a process: at the bucket, and at the semaphore."""
HOLDS = 0.03
"""Seconds for which a slot is held."""
LONG = 2.5
"""The same for the first caller of each process, whose lease must be renewed."""
LOOK = 0.005
"""Seconds between two looks of a holder whether its lease is lost."""
PAUSE = 0.1
"""Seconds before one who was told that the limiter is unavailable asks again."""

WAYS: dict[str, tuple[Any, Any]] = {
    "sync": (SyncTokenBucket, SyncSemaphore),
    "async": (AsyncTokenBucket, AsyncSemaphore),
    "naive": (NaiveBucket, LeaselessSemaphore),
}


class Caller:
    """What the callers of threads and those of tasks share: all but the waiting.

    Parameters:
        journal: Where they write.
        limiter: What they ask.
        kind: ``rate`` or ``slot``.
        number: Which of them it is.
        end: When to ask no more.
    """

    def __init__(self, journal: Journal, limiter: Any, kind: str, number: int, end: float) -> None:
        self.write = journal.write
        self.limiter = limiter
        self.holds = 0.0 if kind == "rate" else LONG if number == 0 else HOLDS
        self._name = f"{kind} {os.getpid()} {number}"
        self._end = end

    def calls(self) -> Iterator[str]:
        """A name for each call, until the time is over."""
        for number in count():
            if time.monotonic() > self._end:
                return
            who = f"{self._name} {number}"
            self.write("asks", who)
            yield who

    def tell(self, who: str, error: Exception) -> None:
        """Write down what was raised: that the limiter is unavailable, or what nobody expects."""
        if isinstance(error, LimiterUnavailableError):
            self.write("told", who, error.reason)
        else:
            self.write("surprise", who, repr(error))

    def work(self, who: str, permit: Any) -> Iterator[None]:
        """Do the work, and look now and then whether the lease is lost."""
        self.write("start", who)
        end = time.monotonic() + self.holds
        while self.holds and not permit.lost and time.monotonic() < end:
            yield
        self.write("lost" if self.holds and permit.lost else "end", who)


def pause(seconds: float) -> None:
    """`time.sleep`, which libfaketime breaks."""
    threading.Event().wait(seconds)


def call(caller: Caller) -> None:
    """A thread."""
    for who in caller.calls():
        try:
            with caller.limiter as permit:
                for _ in caller.work(who, permit):
                    pause(LOOK)
        except Exception as error:  # noqa: BLE001
            caller.tell(who, error)
            pause(PAUSE)


async def acall(caller: Caller) -> None:
    """A task."""
    for who in caller.calls():
        try:
            async with caller.limiter as permit:
                for _ in caller.work(who, permit):
                    await asyncio.sleep(LOOK)
        except Exception as error:  # noqa: BLE001
            caller.tell(who, error)
            await asyncio.sleep(PAUSE)


def callers(url: str, folder: Path, seconds: float, way: str) -> list[Caller]:
    """Those of this process."""
    journal, end = Journal(folder), time.monotonic() + seconds
    make_bucket, make_semaphore = WAYS[way]
    common: dict[str, Any] = {"group": GROUP, "max_sleep": 0, "connection": url}
    bucket = make_bucket(name="rate", capacity=CAPACITY, refill_frequency=1 / RATE, **common)
    semaphore = make_semaphore(name="slots", capacity=SLOTS, expiry=LEASE, **common)
    starting = [Caller(journal, bucket, "rate", number, end) for number in range(STARTING)]
    return starting + [Caller(journal, semaphore, "slot", number, end) for number in range(HOLDING)]


def run_threads(all_: list[Caller], of: Callable[[Caller], None]) -> None:
    threads = [threading.Thread(target=of, args=(caller,)) for caller in all_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def run_tasks(all_: list[Caller], of: Callable[[Caller], Awaitable[None]]) -> None:
    await asyncio.gather(*map(of, all_))


def main(url: str, folder: str, seconds: str, way: str) -> None:
    all_ = callers(url, Path(folder), float(seconds), way)
    if way == "async":
        asyncio.run(run_tasks(all_, acall))
    else:
        run_threads(all_, call)


if __name__ == "__main__":
    main(*sys.argv[1:])
