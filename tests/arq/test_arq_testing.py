"""arq's burst mode with the limiters of `steindamm.testing`, as docs/testing.md shows it."""

from __future__ import annotations

from typing import Any

from arq.jobs import JobStatus
from arq.worker import func

from steindamm import AsyncSemaphore, AsyncTokenBucket
from steindamm.integrations.arq import rate_limited
from steindamm.testing import instant_limiters, strict_limiters

NOWHERE = "redis://127.0.0.1:1"


@rate_limited(limiter=AsyncTokenBucket.from_rate("1/h", name="mail api", connection=NOWHERE))
async def send_mail(ctx: dict[str, Any], to: str) -> str:
    return to


@rate_limited(limiter=AsyncSemaphore("writers", capacity=1, connection=NOWHERE))
async def write(ctx: dict[str, Any]) -> None: ...


async def test_instant_limiters_let_all_jobs_run(send: Any, make_worker: Any) -> None:
    with instant_limiters() as limits:
        jobs = [await send("send_mail", str(number)) for number in range(10)]
        jobs += [await send("write") for _ in range(10)]
        worker = make_worker(func(send_mail, name="send_mail"), func(write, name="write"))
        await worker.async_run()
    assert worker.jobs_retried == 0
    assert limits.taken == {"mail api": 10, "writers": 10}
    assert [await job.result(timeout=5) for job in jobs[:10]] == [str(number) for number in range(10)]


async def test_strict_limiters_show_who_must_wait(send: Any, make_worker: Any) -> None:
    with strict_limiters() as limits:
        jobs = [await send("send_mail", str(number)) for number in range(2)]
        worker = make_worker(func(send_mail, name="send_mail"), max_burst_jobs=2)
        await worker.async_run()
    assert sorted([await job.status() for job in jobs]) == [JobStatus.complete, JobStatus.deferred]
    assert limits.taken == {"mail api": 1}
