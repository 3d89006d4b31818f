"""Jobs whose server says "not now" close their limiter and come back in their turn; jobs settle their costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.error import HTTPError

import pytest
from arq.worker import func
from support import refusing_api
from support.arq_limits import bucket, new_name

from steindamm import AsyncSemaphore, AsyncTokenBucket, MaxSleepExceededError, Throttled, current_permit
from steindamm.integrations.arq import rate_limited, rate_limited_worker

Ctx = dict[str, Any]


class BusyError(Exception):
    """A server is busy, for so many seconds."""


BUSY = {BusyError: lambda error: error.args[0]}


class Server:
    """Refuses one call of job 0, and keeps when it was called, by which job, in which try."""

    def __init__(self, error: Exception) -> None:
        self.calls: list[tuple[float, int, int]] = []
        self.was_called = asyncio.Event()
        self._errors = [error]

    async def call(self, ctx: Ctx, job: int) -> int:
        self.calls.append((time.monotonic(), job, ctx["job_try"]))
        self.was_called.set()
        if job == 0 and self._errors:
            raise self._errors.pop()
        return job

    def function(self, **limit: Any) -> Any:
        """What a worker takes."""
        return func(rate_limited(**limit)(self.call), name="call", max_tries=1)


@pytest.mark.parametrize("error", [Throttled(0.8), BusyError(0.8)])
async def test_a_servers_not_now_closes_the_limiter_for_all_and_spends_no_try(
    send: Any, run_until_empty: Any, error: Exception
) -> None:
    server = Server(error)
    jobs = [await send("call", job) for job in range(10)]
    await run_until_empty(server.function(limiter=bucket(0.03), throttle_on=BUSY))
    assert [await job.result(timeout=5) for job in jobs] == list(range(10))
    [refused, again] = [at for at, job, _ in server.calls if job == 0]
    assert again - refused > 0.79
    assert {tries for *_, tries in server.calls} == {1}
    assert len(server.calls) == 11
    after = sorted(at - refused for at, *_ in server.calls if at - refused > 0.1)
    late = sum(at < 0.79 for at in after)
    assert late <= 2, "more than those that had been let start before"
    assert all(at > 0.8 + 0.03 * (place - 1) - 0.01 for place, at in enumerate(after[late:]))


async def test_where_nothing_is_retried_the_job_waits_in_the_worker(send: Any, run_until_empty: Any) -> None:
    server = Server(Throttled(0.3))
    job = await send("call", 0)
    worker = await run_until_empty(server.function(limiter=bucket(0.03)), retry_jobs=False)
    assert await job.result(timeout=5) == 0
    assert worker.jobs_retried == 0
    assert server.calls[1][0] - server.calls[0][0] > 0.29


async def test_a_slot_is_free_for_others_while_its_job_waits(send: Any, run_until_empty: Any) -> None:
    server, slots = Server(Throttled(1.0)), AsyncSemaphore(new_name(), capacity=1)
    job = await send("call", 0)
    running = asyncio.create_task(run_until_empty(server.function(limiter=slots)))
    await server.was_called.wait()
    await asyncio.sleep(0.1)
    await slots.reopen()
    async with slots:
        pass
    await running
    assert await job.result(timeout=5) == 0


async def test_a_job_that_would_wait_too_long_fails(send: Any, run_until_empty: Any) -> None:
    server = Server(Throttled(30))
    job = await send("call", 0)
    await run_until_empty(server.function(limiter=bucket(0.03), max_deferral=1))
    with pytest.raises(MaxSleepExceededError):
        await job.result(timeout=5)


async def test_a_not_now_is_heard_in_a_group(send: Any, run_until_empty: Any) -> None:
    server = Server(Throttled(0.1))

    @rate_limited(limiter=bucket(0.03))
    async def work(ctx: Ctx) -> None:
        async with asyncio.TaskGroup() as calls:
            for job in range(2):
                calls.create_task(server.call(ctx, job))

    await send("work")
    worker = await run_until_empty(func(work, name="work", max_tries=1))
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 0)
    assert sorted((job, tries) for _, job, tries in server.calls) == [(0, 1), (0, 1), (1, 1), (1, 1)]


async def test_a_group_with_another_error_in_it_fails_its_job(send: Any, run_until_empty: Any) -> None:
    @rate_limited(limiter=bucket(0.03))
    async def work(ctx: Ctx) -> None:
        raise ExceptionGroup("calls", [Throttled(0.1), KeyError("a defect")])

    job = await send("work")
    worker = await run_until_empty(func(work, name="work", max_tries=2))
    assert (worker.jobs_retried, worker.jobs_failed) == (0, 1)
    with pytest.raises(ExceptionGroup, match="calls"):
        await job.result(timeout=5)


async def test_a_reader_that_raises_fails_its_job_with_its_error(send: Any, run_until_empty: Any) -> None:
    server = Server(BusyError())
    odd, fine = await send("call", 0), await send("call", 1)
    await run_until_empty(server.function(limiter=bucket(0.03), throttle_on=BUSY))
    with pytest.raises(IndexError):
        await odd.result(timeout=5)
    assert await fine.result(timeout=5) == 1


async def test_a_worker_s_throttle_on_holds_for_functions_without_a_limit(send: Any, run_until_empty: Any) -> None:
    server = Server(BusyError(0.3))
    settings = rate_limited_worker(throttle_on=BUSY)({"functions": [func(server.call, name="call", max_tries=1)]})
    job = await send("call", 0)
    await run_until_empty(*settings["functions"], fitted=False)
    assert await job.result(timeout=5) == 0
    assert {tries for *_, tries in server.calls} == {1}


async def test_jobs_settle_their_costs_each_its_own(send: Any, run_until_empty: Any) -> None:
    model, slots = AsyncTokenBucket(new_name(), capacity=1_000, refill_frequency=1_000), AsyncSemaphore(new_name())

    async def use(actual: float) -> None:
        await current_permit(model).settle(actual)

    @rate_limited(limiter=[(model, 300), slots])
    async def work(ctx: Ctx, actual: float) -> str:
        await asyncio.sleep(0.05)
        await asyncio.create_task(use(actual))
        return current_permit().name

    jobs = [await send("work", 100), await send("work", 800)]
    await run_until_empty(func(work, name="work"))
    assert [await job.result(timeout=5) for job in jobs] == [f"{model.name} + {slots.name}"] * 2
    assert await model(101).try_acquire() is None
    assert await model(100).try_acquire() is not None


async def test_an_api_that_allows_half_of_the_limit_hardly_ever_has_to_say_no(send: Any, run_until_empty: Any) -> None:
    tries = set()

    @rate_limited(limiter=AsyncTokenBucket(new_name(), **refusing_api.LIMIT), throttle_on=HTTPError)
    async def call(ctx: Ctx, url: str, job: int) -> None:
        tries.add(ctx["job_try"])
        await asyncio.to_thread(refusing_api.call, url, job)

    with refusing_api.refusing_api() as url:
        for job in range(refusing_api.JOBS):
            await send("call", url, job)
        await run_until_empty(func(call, name="call", max_tries=1))
        refusing_api.check(refusing_api.calls_of_all(url))
    assert tries == {1}
