"""How a limiter is used: the statement that its users write, run in the loops of the benchmarks.

Statements are text, as in `timeit`, so that no call of ours is measured along with them.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

SYNC = """
from itertools import repeat
from time import monotonic

def calls(times, clock):
    started = clock()
    for _ in repeat(None, times):
        {plain}
    return clock() - started

def until(end):
    done = 0
    while monotonic() < end:
        {plain}
        done += 1
    return done

def record(end, started):
    while monotonic() < end:
        {working}
"""
ASYNC = SYNC.replace("def ", "async def ")


class Use:
    """One limiter, ready to be used.

    Parameters:
        statement: One use of it, on one line; ``{body}`` stands for the work.
        names: What the statement speaks of.
    """

    def __init__(self, statement: str, **names: Any) -> None:
        self.is_async = "await " in statement or "async with" in statement
        plain = statement.replace("{body}", "pass")
        working = statement.replace("{body}", "await work(started)" if self.is_async else "work(started)")
        self._names = names
        exec((ASYNC if self.is_async else SYNC).format(plain=plain, working=working), names)

    def calls(self, times: int, clock: str) -> Any:
        """Seconds, on a clock of the `time` module, that so many uses take, one after the other."""
        return self._names["calls"](times, getattr(time, clock))

    def until(self, end: float) -> Any:
        """How many uses are done until a moment on the monotonic clock."""
        return self._names["until"](end)

    def record(self, end: float, hold: float) -> Any:
        """When each use began its work, and when it ended it, until a moment on the monotonic clock.

        Parameters:
            end: Uses that begin after it are not made.
            hold: Seconds that the work takes.
        """
        self._names["work"] = _asynchronous(hold) if self.is_async else _synchronous(hold)
        started: list[tuple[float, float]] = []
        running = self._names["record"](end, started)
        return _finished(running, started) if self.is_async else started


async def _finished(running: Any, started: list[tuple[float, float]]) -> list[tuple[float, float]]:
    await running
    return started


def _synchronous(hold: float) -> Callable[[list[tuple[float, float]]], None]:
    def work(started: list[tuple[float, float]]) -> None:
        began = time.monotonic()
        if hold:
            time.sleep(hold)
        started.append((began, time.monotonic()))

    return work


def _asynchronous(hold: float) -> Callable[[list[tuple[float, float]]], Any]:
    async def work(started: list[tuple[float, float]]) -> None:
        began = time.monotonic()
        if hold:
            await asyncio.sleep(hold)
        started.append((began, time.monotonic()))

    return work


def in_threads(count: int, job: Callable[[], Any]) -> list[Any]:
    """The results of one job done by so many threads at once."""
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(job())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


async def in_tasks(count: int, job: Callable[[], Any]) -> list[Any]:
    """The results of one job done by so many tasks at once."""
    return list(await asyncio.gather(*(job() for _ in range(count))))


def settle() -> None:
    """What earlier rounds left behind is not this round's to clear away."""
    gc.collect()
