"""arq's jobs that are limited by several limits at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from arq.worker import func
from support.arq_limits import bucket, new_name

from steindamm import AsyncSemaphore
from steindamm.integrations.arq import rate_limited

Ctx = dict[str, Any]


@pytest.mark.parametrize("max_sleep", [0, 2])
async def test_jobs_keep_to_all_of_their_limits_and_run_once_each(
    send: Any, run_until_empty: Any, max_sleep: float
) -> None:
    tokens, at_once = bucket(0.04), AsyncSemaphore(new_name(), capacity=2)
    running, most, starts = 0, 0, []

    @rate_limited(limiter=[tokens, at_once], max_sleep=max_sleep)
    async def work(ctx: Ctx, job: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        starts.append((time.monotonic(), job, ctx["job_try"]))
        await asyncio.sleep(0.03)
        running -= 1
        return job

    jobs = [await send("work", number) for number in range(12)]
    await run_until_empty(func(work, name="work"))
    assert [await job.result(timeout=5) for job in jobs] == list(range(12))
    assert sorted((job, tries) for _, job, tries in starts) == [(number, 1) for number in range(12)]
    assert most <= 2
    assert starts[-1][0] - starts[0][0] > 11 * 0.04 - 0.05
    assert await at_once.try_acquire()
    assert await at_once.try_acquire()
