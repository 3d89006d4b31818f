"""Limiters of their own for the tests of arq's jobs, and what they look at."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from itertools import count
from typing import Any

from arq import cron
from arq.cron import CronJob

from steindamm import AsyncTokenBucket

NUMBERS = count(1)


def new_name() -> str:
    """A limiter's name that no other test uses."""
    return f"arq test {time.monotonic_ns()} {next(NUMBERS)}"


def bucket(every: float, capacity: float = 1.0, **settings: Any) -> AsyncTokenBucket:
    """A bucket of its own, in memory."""
    return AsyncTokenBucket(new_name(), capacity=capacity, refill_frequency=every, **settings)


def cron_at_startup(function: Any, **settings: Any) -> CronJob:
    """A cron job that runs as the worker starts, and not again for the next eleven hours."""
    hour = (datetime.now().astimezone().hour + 12) % 24
    return cron(function, hour=hour, run_at_startup=True, unique=False, **settings)


def booking_key(job_id: str) -> str:
    return f"arq:steindamm:{job_id}"


async def eventually(ask: Any, wanted: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while (found := await ask()) != wanted:
        assert time.monotonic() < end, f"{found!r} did not become {wanted!r}"
        await asyncio.sleep(0.02)
