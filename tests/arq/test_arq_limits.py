"""What limits a job, what fails it, and how jobs wait where they can not, or need not, go back."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest
from arq.jobs import JobStatus
from arq.worker import JobExecutionFailed, Retry, create_worker, func
from support.arq_limits import bucket, cron_at_startup, eventually, new_name

from steindamm import AsyncSemaphore, AsyncTokenBucket, MaxSleepExceededError, NoTokensAvailableError
from steindamm.integrations.arq import rate_limited, rate_limited_worker

Ctx = dict[str, Any]


async def test_a_cron_job_starts_at_its_turn_and_not_a_minute_later(run_until_empty: Any, broker: Any) -> None:
    ran = []

    @rate_limited(limiter=bucket(0.4, initial_tokens=0), max_sleep=0)
    async def report(ctx: Ctx) -> None:
        ran.append(ctx["job_try"])

    after = []

    async def own_hook(ctx: Ctx) -> None:
        after.append(ctx["job_id"])

    job = cron_at_startup(report, name="report")
    began = time.monotonic()
    worker = await run_until_empty(cron_jobs=[job], after_job_end=own_hook)
    assert ran == [1]
    assert time.monotonic() - began < 5
    assert (worker.jobs_retried, worker.jobs_complete, len(after)) == (1, 1, 2)
    assert [round(broker.admin.ttl(key)) for key in broker.admin.keys("arq:in-progress:*")] == [60]


async def test_where_nothing_is_retried_the_job_waits_in_the_worker(send: Any, run_until_empty: Any) -> None:
    @rate_limited(limiter=bucket(0.3), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    slot = AsyncSemaphore(new_name(), capacity=1)

    @rate_limited(limiter=slot, max_sleep=0)
    async def hold(ctx: Ctx, job: int) -> int:
        await asyncio.sleep(0.1)
        return job

    jobs = [await send(name, number) for name in ("work", "hold") for number in range(3)]
    worker = await run_until_empty(func(work, name="work"), func(hold, name="hold"), retry_jobs=False)
    assert [await job.result(timeout=5) for job in jobs] == [0, 1, 2] * 2
    assert worker.jobs_retried == 0


@pytest.mark.parametrize(
    ("settings", "max_sleep"), [({"retry_jobs": False}, 0), ({"job_timeout": 0.8}, 5), ({"max_jobs": 1}, 5)], ids=str
)
async def test_what_a_worker_is_given_beside_its_fitted_settings_counts(
    send: Any, pool: Any, settings: dict[str, Any], max_sleep: float
) -> None:
    """As in `run_worker(WorkerSettings, retry_jobs=False)`. With one place, it would else be taken by who waits."""
    began = []

    @rate_limited(limiter=bucket(0.6), max_sleep=max_sleep)
    async def work(ctx: Ctx, job: int) -> None:
        began.append("work")

    async def other(ctx: Ctx) -> None:
        began.append("other")

    jobs = [await send("work", number) for number in range(3)] + [await send("other")]
    fitted = rate_limited_worker()({"functions": [func(work, name="work"), func(other, name="other")]})
    worker = create_worker(fitted, redis_pool=pool, burst=True, poll_delay=0.02, handle_signals=False, **settings)
    await worker.async_run()
    assert [await job.result(timeout=5) for job in jobs] == [None] * 4
    assert began[:2] in (["work", "other"], ["other", "work"])


async def test_where_nothing_is_retried_a_refused_body_waits_as_long_as_it_was_told(
    send: Any, run_until_empty: Any
) -> None:
    ran_at = []

    @rate_limited()
    async def work(ctx: Ctx) -> None:
        ran_at.append(time.monotonic())
        if len(ran_at) == 1:
            raise MaxSleepExceededError("the API's own", retry_after=2.2)

    await send("work")
    worker = await run_until_empty(func(work, name="work"), retry_jobs=False)
    assert (worker.jobs_complete, worker.jobs_retried) == (1, 0)
    assert ran_at[1] - ran_at[0] >= 2.2


async def test_where_nothing_is_retried_a_wait_beyond_the_timeout_fails_at_once(
    send: Any, run_until_empty: Any
) -> None:
    limiter = bucket(60, initial_tokens=0)

    @rate_limited(limiter=limiter)
    async def work(ctx: Ctx, job: int) -> None: ...

    job = await send("work", 1)
    await run_until_empty(func(work, name="work", timeout=10), retry_jobs=False)
    with pytest.raises(MaxSleepExceededError) as error:
        await job.result(timeout=5)
    assert error.value.name == limiter.name
    assert error.value.retry_after == pytest.approx(60, abs=2)
    assert error.value.max_sleep == pytest.approx(10, abs=2)


async def test_with_one_try_what_only_waits_outlives_its_worker_and_what_ran_runs_once(
    send: Any, make_worker: Any, run_until_empty: Any
) -> None:
    """What `retry_jobs=False` is mostly wanted for."""
    slot, began = AsyncSemaphore(new_name(), capacity=1), []

    @rate_limited(limiter=slot, max_sleep=60)
    async def hold(ctx: Ctx, job: int) -> int:
        began.append(job)
        await asyncio.sleep(60 if job == 0 else 0)
        return job

    async def run_and_wait() -> tuple[int, int]:
        return len(began), (await slot.state()).waiters

    function = func(hold, name="hold", max_tries=1)
    worker = make_worker(function, burst=False)
    ending = asyncio.create_task(worker.async_run())
    running = await send("hold", 0)
    await eventually(run_and_wait, (1, 0))
    waiting = await send("hold", 1)
    await eventually(run_and_wait, (1, 1))
    worker.handle_sig(signal.SIGTERM)
    await asyncio.gather(ending, *worker.tasks.values(), return_exceptions=True)
    await run_until_empty(function)
    assert await waiting.result(timeout=5) == 1
    with pytest.raises(JobExecutionFailed, match="max 1 retries exceeded"):
        await running.result(timeout=5)
    assert began == [0, 1]


async def test_settings_that_are_not_fitted_and_retry_nothing_are_told_what_to_do(
    send: Any, run_until_empty: Any
) -> None:
    @rate_limited(limiter=bucket(60, initial_tokens=0))
    async def work(ctx: Ctx, job: int) -> None: ...

    job = await send("work", 1)
    await run_until_empty(func(work, name="work"), retry_jobs=False, fitted=False)
    with pytest.raises(Retry, match="fit the worker's settings with rate_limited_worker"):
        await job.result(timeout=5)


async def test_a_job_that_waits_too_long_fails_without_another_try(send: Any, run_until_empty: Any) -> None:
    limiter = bucket(60, initial_tokens=0)
    started = []

    @rate_limited(limiter=limiter, max_deferral=1)
    async def work(ctx: Ctx, job: int) -> None:
        started.append(job)

    job = await send("work", 1)
    worker = await run_until_empty(func(work, name="work"))
    with pytest.raises(MaxSleepExceededError) as error:
        await job.result(timeout=5)
    assert (error.value.name, error.value.max_sleep) == (limiter.name, 1)
    assert started == []
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)


async def test_what_a_job_waits_in_the_worker_counts_too(send: Any, run_until_empty: Any) -> None:
    slot = AsyncSemaphore(new_name(), capacity=1)
    await slot.acquire()

    @rate_limited(limiter=slot, max_sleep=60, max_deferral=0.4)
    async def hold(ctx: Ctx) -> None: ...

    @rate_limited(limiter=bucket(30, initial_tokens=0), max_sleep=60, max_deferral=0.4)
    async def work(ctx: Ctx) -> None: ...

    jobs = [await send("hold"), await send("work")]
    began = time.monotonic()
    await run_until_empty(func(hold, name="hold"), func(work, name="work"))
    assert time.monotonic() - began < 5
    for job in jobs:
        with pytest.raises(MaxSleepExceededError):
            await job.result(timeout=5)


async def test_a_spent_quota_fails_the_job(send: Any, run_until_empty: Any) -> None:
    quota = AsyncTokenBucket(new_name(), capacity=1, refill_amount=0, refill_frequency=0)

    @rate_limited(limiter=quota)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    jobs = [await send("work", number) for number in range(2)]
    await run_until_empty(func(work, name="work"))
    infos = [await job.result_info() for job in jobs]
    assert sorted(info.success for info in infos) == [False, True]
    assert [type(info.result) for info in infos if not info.success] == [NoTokensAvailableError]


async def test_limits_and_costs_come_from_the_jobs_arguments(send: Any, run_until_empty: Any) -> None:
    limiters = {"a": bucket(60, capacity=5), "b": bucket(60, capacity=5)}

    @rate_limited(limiter=lambda user, *_, **__: limiters.get(user), cost=lambda user, amount=1: amount)
    async def work(ctx: Ctx, user: str, amount: int = 1) -> int:
        return amount

    jobs = [await send("work", "a", 4), await send("work", "b", amount=3), await send("work", "free")]
    await run_until_empty(func(work, name="work"))
    assert [await job.result(timeout=5) for job in jobs] == [4, 3, 1]
    assert await limiters["a"](1).try_acquire()
    assert not await limiters["a"](1).try_acquire()
    assert await limiters["b"](2).try_acquire()
    assert not await limiters["b"](1).try_acquire()


@pytest.mark.parametrize(
    ("limiter", "cost", "error", "said"),
    [
        (lambda job: {}[job], None, KeyError, "1"),
        (lambda: None, None, TypeError, "positional argument"),
        (lambda job: "no limiter", None, TypeError, "a function that returns a limiter, or None"),
        (lambda job: bucket(1, capacity=2), lambda job: 5, ValueError, "must not exceed capacity"),
        (lambda job: bucket(1), lambda job: {}[job], KeyError, "1"),
    ],
)
async def test_a_function_that_fails_fails_its_job_alone(
    send: Any, run_until_empty: Any, limiter: Any, cost: Any, error: type[Exception], said: str
) -> None:
    @rate_limited(limiter=limiter, cost=cost)
    async def work(ctx: Ctx, job: int) -> None: ...

    async def other(ctx: Ctx) -> str:
        return "done"

    job, bystander = await send("work", 1), await send("other")
    await run_until_empty(func(work, name="work"), func(other, name="other"))
    with pytest.raises(error, match=said):
        await job.result(timeout=5)
    assert await bystander.result(timeout=5) == "done"


async def test_a_waiting_job_that_is_aborted_is_gone_and_leaves_its_turn(
    send: Any, make_worker: Any, broker: Any
) -> None:
    limiter = bucket(2, initial_tokens=0)

    @rate_limited(limiter=limiter, max_sleep=10)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    @rate_limited(limiter=bucket(60, initial_tokens=0))
    async def wait_in_queue(ctx: Ctx) -> None: ...

    worker = make_worker(func(work, name="work"), func(wait_in_queue, name="wait"), burst=False, allow_abort_jobs=True)
    here, there = await send("work", 1), await send("wait")
    running = asyncio.create_task(worker.async_run())
    await eventually(there.status, JobStatus.deferred)
    assert await here.status() == JobStatus.in_progress
    assert await here.abort(timeout=5, poll_delay=0.02)
    assert await there.abort(timeout=5, poll_delay=0.02)
    assert (await limiter.reserve()).delay < 2.1
    assert broker.admin.zcard("arq:queue") == 0
    running.cancel()


async def test_a_job_waits_no_longer_in_the_worker_than_half_its_timeout(send: Any, run_until_empty: Any) -> None:
    @rate_limited(limiter=bucket(0.7, initial_tokens=0), max_sleep=60)
    async def work(ctx: Ctx, job: int) -> str:
        return "done"

    job = await send("work", 1)
    worker = await run_until_empty(func(work, name="work", timeout=1))
    assert await job.result(timeout=5) == "done"
    assert worker.jobs_retried == 1


async def test_waiting_jobs_leave_half_of_the_places_to_others(send: Any, make_worker: Any) -> None:
    limiter = AsyncSemaphore(new_name(), capacity=1)
    held = await limiter.acquire()

    @rate_limited(limiter=limiter, max_sleep=60)
    async def hold(ctx: Ctx, job: int) -> int:
        return job

    async def free(ctx: Ctx, job: int) -> int:
        return job

    jobs = [await send("hold", number) for number in range(10)]
    worker = make_worker(func(hold, name="hold"), func(free, name="free"), burst=False, max_jobs=4)
    running = asyncio.create_task(worker.async_run())
    for number in range(5):
        job = await send("free", number)
        assert await job.result(timeout=3, poll_delay=0.01) == number
    await limiter.release(held)
    assert sorted([await job.result(timeout=5, poll_delay=0.02) for job in jobs]) == list(range(10))
    running.cancel()


async def test_a_limited_function_that_is_called_by_a_job_runs_within_it(send: Any, run_until_empty: Any) -> None:
    limiter = bucket(60)

    @rate_limited(limiter=limiter)
    async def inner(ctx: Ctx) -> str:
        return "inner"

    @rate_limited(limiter=bucket(60))
    async def outer(ctx: Ctx) -> list[str]:
        return [await inner(ctx), await inner(ctx), await inner({})]

    job = await send("outer")
    await run_until_empty(func(outer, name="outer"), func(inner, name="inner"))
    assert await job.result(timeout=5) == ["inner"] * 3
    assert await limiter.try_acquire()
