"""A process of many tasks that take several limits at once, each time in another order.

``python -m support.crowd URL SECONDS TASKS`` prints, as JSON, when they started on the clock that all processes of the
machine share, and how often they asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from steindamm import AsyncSemaphore, AsyncTokenBucket, all_of

RATE, CAPACITY = 100, 10
"""Of the tightest limit."""
HOLDS = 0.002
"""Seconds that a task holds its slot."""


def limiters(url: str) -> list[Any]:
    """A limit of a hundred a second, a wider one, and slots that would do for five hundred a second."""
    return [
        AsyncTokenBucket("tightest", capacity=CAPACITY, refill_frequency=1 / RATE, connection=url),
        AsyncTokenBucket("wider", capacity=CAPACITY, refill_frequency=1 / 150, connection=url),
        AsyncSemaphore("slots", capacity=5, connection=url),
    ]


async def starts(url: str, seconds: float, tasks: int) -> dict[str, Any]:
    """Take them for so long."""
    parts, begun, asked = limiters(url), [], 0
    end = time.monotonic() + seconds
    backend = all_of(*parts)._backend
    ask = backend.ask

    async def counted(request: Any) -> Any:
        nonlocal asked
        asked += 1
        return await ask(request)

    backend.ask = counted

    async def one() -> None:
        while time.monotonic() < end:
            async with all_of(*random.sample(parts, len(parts)), max_sleep=60):
                begun.append(time.monotonic())
                await asyncio.sleep(HOLDS)

    await asyncio.wait_for(asyncio.gather(*(one() for _ in range(tasks))), seconds + 60)
    return {"starts": begun, "asked": asked}


class Outcome(NamedTuple):
    """What all processes have done together."""

    starts: list[float]
    asked: int

    def used(self, seconds: float) -> float:
        """The share of the tightest limit that was used in so many seconds from the first start on."""
        end = self.starts[0] + seconds
        return sum(start <= end for start in self.starts) / (CAPACITY + RATE * seconds)

    def most_in(self, window: float) -> int:
        most = first = 0
        for last, start in enumerate(self.starts):
            while self.starts[first] < start - window:
                first += 1
            most = max(most, last - first + 1)
        return most


def crowd(url: str, seconds: float, processes: int, tasks: int) -> Outcome:
    """Let so many processes of so many tasks take them at the same time."""
    command = [sys.executable, "-m", "support.crowd", url, str(seconds), str(tasks)]
    folder = Path(__file__).parents[1]
    running = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    told = [json.loads(process.communicate(timeout=seconds + 90)[0]) for process in running]
    return Outcome(sorted(start for each in told for start in each["starts"]), sum(each["asked"] for each in told))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(starts(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
