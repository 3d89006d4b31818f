"""What becomes of a job that must wait: its tries, its id, its place, its result, its keys in Redis."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from typing import Any

import pytest
from arq.jobs import JobStatus
from arq.worker import Retry, func
from support.arq_limits import booking_key, bucket, eventually, new_name

from steindamm import AsyncSemaphore, AsyncTokenBucket, MaxSleepExceededError, Whereabouts, where_is_async
from steindamm.integrations.arq import rate_limited

Ctx = dict[str, Any]


async def test_jobs_with_five_tries_are_deferred_eight_times_and_succeed(send: Any, run_until_empty: Any) -> None:
    deferred: dict[int, int] = {}

    def refuses_eight_times(job: int) -> AsyncTokenBucket | None:
        deferred[job] = deferred.get(job, 0) + 1
        return bucket(0.13, initial_tokens=0) if deferred[job] <= 8 else None

    @rate_limited(limiter=refuses_eight_times, max_sleep=0)
    async def work(ctx: Ctx, job: int) -> int:
        return int(ctx["job_try"])

    jobs = [await send("work", number) for number in range(10)]
    worker = await run_until_empty(func(work, name="work", max_tries=5))
    assert [await job.result(timeout=5) for job in jobs] == [1] * 10
    assert deferred == dict.fromkeys(range(10), 9)
    assert worker.jobs_failed == 0


async def test_a_deferral_is_seen_as_one(send: Any, make_worker: Any, pool: Any, broker: Any) -> None:
    limiter = bucket(60)

    @rate_limited(limiter=limiter)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    worker = make_worker(func(work, name="work"), burst=False)
    first, second = await send("work", 1), await send("work", 2, _job_id="the second")
    running = asyncio.create_task(worker.async_run())
    assert await first.result(timeout=5, poll_delay=0.02) == 1
    await eventually(second.status, JobStatus.deferred)
    info = await second.info()
    assert second.job_id == "the second"
    assert (info.function, info.args, info.job_try) == ("work", (2,), None)
    assert info.score / 1000 == pytest.approx(time.time() + 60, abs=2)
    assert await second.result_info() is None
    assert broker.tries("the second") == 0
    booking = json.loads(broker.admin.get(booking_key("the second")))
    assert (booking["limiter"], booking["deferrals"]) == (limiter.name, 1)
    assert 60 < broker.admin.ttl(booking_key("the second")) <= 86_400 + 61
    running.cancel()


async def test_what_reports_errors_takes_a_deferral_for_arqs_own_retry(send: Any, run_until_empty: Any) -> None:
    """Sentry, which stands around the functions of a worker, reports all errors but those of arq's very classes."""
    raised = []

    @rate_limited(limiter=bucket(0.2, initial_tokens=0), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    @functools.wraps(work)
    async def reported(*args: Any) -> int:
        try:
            return await work(*args)
        except Exception as error:
            raised.append(type(error))
            raise

    job = await send("work", 1)
    await run_until_empty(func(reported, name="work"))
    assert await job.result(timeout=5) == 1
    assert raised == [Retry]


async def test_who_waits_for_the_result_gets_the_real_one(send: Any, run_until_empty: Any, broker: Any) -> None:
    @rate_limited(limiter=bucket(0.5, initial_tokens=0), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> str:
        return "the result"

    job = await send("work", 1)
    waiting = asyncio.create_task(job.result(timeout=5, poll_delay=0.01))
    worker = await run_until_empty(func(work, name="work"))
    assert await waiting == "the result"
    assert (worker.jobs_retried, worker.jobs_complete) == (1, 1)
    assert not broker.admin.exists(booking_key(job.job_id))


async def test_own_retries_stay_own(send: Any, run_until_empty: Any) -> None:
    tries = []

    @rate_limited(limiter=bucket(0.2), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> str:
        tries.append(ctx["job_try"])
        if ctx["job_try"] < 3:
            raise Retry(defer=0.02)
        return "done"

    job = await send("work", 1)
    worker = await run_until_empty(func(work, name="work", max_tries=3))
    assert await job.result(timeout=5) == "done"
    assert tries == [1, 2, 3]
    assert worker.jobs_retried > 3


async def test_a_job_that_has_used_up_its_tries_fails_as_ever(send: Any, run_until_empty: Any) -> None:
    tries = []

    @rate_limited(limiter=bucket(0.1), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> None:
        tries.append(ctx["job_try"])
        raise Retry

    job = await send("work", 1)
    await run_until_empty(func(work, name="work", max_tries=3))
    with pytest.raises(Exception, match="max 3 retries exceeded"):
        await job.result(timeout=5)
    assert tries == [1, 2, 3]


async def test_a_body_that_meets_a_limit_is_deferred_without_a_try(send: Any, run_until_empty: Any) -> None:
    tries = []

    @rate_limited()
    async def work(ctx: Ctx, job: int) -> str:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise MaxSleepExceededError("the API's own", retry_after=0.1)
        return "done"

    job = await send("work", 1)
    worker = await run_until_empty(func(work, name="work", max_tries=1))
    assert await job.result(timeout=5) == "done"
    assert tries == [1, 1, 1]
    assert (worker.jobs_retried, worker.jobs_failed) == (2, 0)


async def test_a_body_that_is_refused_for_too_long_fails_with_its_error(send: Any, run_until_empty: Any) -> None:
    @rate_limited(max_deferral=0.5)
    async def work(ctx: Ctx, job: int) -> None:
        raise MaxSleepExceededError("the API's own", retry_after=0.2)

    job = await send("work", 1)
    worker = await run_until_empty(func(work, name="work"))
    with pytest.raises(MaxSleepExceededError) as error:
        await job.result(timeout=5)
    assert (error.value.name, error.value.retry_after) == ("the API's own", 0.2)
    assert worker.jobs_retried == 2


async def test_a_job_deferred_past_its_expiry_survives(send: Any, run_until_empty: Any, broker: Any) -> None:
    @rate_limited(limiter=bucket(1.2, initial_tokens=0), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> str:
        return "alive"

    job = await send("work", 1, _expires=0.6)
    await run_until_empty(func(work, name="work"))
    assert await job.result(timeout=5) == "alive"


async def test_a_job_that_never_expires_does_not_begin_to(send: Any, make_worker: Any, broker: Any) -> None:
    @rate_limited(limiter=bucket(60, initial_tokens=0))
    async def work(ctx: Ctx) -> None: ...

    job = await send("work")
    broker.admin.persist(f"arq:job:{job.job_id}")
    await make_worker(func(work, name="work"), max_burst_jobs=1).async_run()
    assert await job.status() == JobStatus.deferred
    assert broker.admin.ttl(f"arq:job:{job.job_id}") == -1
    assert broker.admin.ttl(booking_key(job.job_id)) > 60
    broker.admin.expire(f"arq:job:{job.job_id}", 60)


async def test_a_wait_of_several_hops_goes_on_where_it_was(send: Any, run_until_empty: Any, broker: Any) -> None:
    ran_at = []

    @rate_limited()
    async def work(ctx: Ctx) -> None:
        ran_at.append(time.time())

    job = await send("work", _defer_by=0.001)
    enqueued = round((await job.info()).enqueue_time.timestamp() * 1000)
    until = time.time() + 1.3
    broker.admin.set(booking_key(job.job_id), json.dumps({"until": until, "enqueued": enqueued}), px=60_000)
    worker = await run_until_empty(func(work, name="work"))
    assert ran_at[0] >= until - 0.01
    assert worker.jobs_retried == 1


async def test_a_try_that_was_sent_along_counts_on(send: Any, run_until_empty: Any) -> None:
    @rate_limited(limiter=bucket(0.2, initial_tokens=0), max_sleep=0)
    async def work(ctx: Ctx) -> int:
        return int(ctx["job_try"])

    job = await send("work", _job_try=3)
    worker = await run_until_empty(func(work, name="work", max_tries=3))
    assert await job.result(timeout=5) == 3
    assert worker.jobs_retried == 1


async def test_one_that_expires_while_its_body_runs_waits_in_the_worker(send: Any, run_until_empty: Any) -> None:
    tries = []

    @rate_limited()
    async def work(ctx: Ctx, job: int) -> str:
        tries.append(ctx["job_try"])
        await asyncio.sleep(0.3)
        if len(tries) == 1:
            raise MaxSleepExceededError("the API's own", retry_after=0.1)
        return "alive"

    job = await send("work", 1, _expires=0.2)
    worker = await run_until_empty(func(work, name="work"))
    assert await job.result(timeout=5) == "alive"
    assert worker.jobs_retried == 0


async def test_results_that_are_not_kept_leave_nothing(send: Any, run_until_empty: Any, broker: Any) -> None:
    @rate_limited(limiter=bucket(0.3, initial_tokens=0), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> None: ...

    await send("work", 1)
    await run_until_empty(func(work, name="work", keep_result=0))
    assert broker.keys() == []


@pytest.mark.parametrize("job_id", ["arq:queue", "x:steindamm:", "{a}", "../..", "a b\n", "雪" * 50], ids=range(6))
async def test_ids_are_anything(send: Any, run_until_empty: Any, broker: Any, job_id: str) -> None:
    @rate_limited(limiter=bucket(0.2, initial_tokens=0), max_sleep=0)
    async def work(ctx: Ctx, job: int) -> str:
        return ctx["job_id"]

    job = await send("work", 1, _job_id=job_id)
    await run_until_empty(func(work, name="work"))
    assert await job.result(timeout=5) == job_id
    assert broker.keys() == [f"arq:result:{job_id}"]


async def test_no_job_gets_the_booking_of_an_earlier_one(send: Any, run_until_empty: Any, broker: Any) -> None:
    """Such as one that was aborted while it waited."""

    @rate_limited(limiter=bucket(0.2, initial_tokens=0), max_sleep=0, max_deferral=60)
    async def work(ctx: Ctx, job: int) -> str:
        return "done"

    job = await send("work", 1, _job_id="again", _defer_by=0.001)
    earlier = {"limiter": "x", "turn": 1.0, "since": 1.0, "deferrals": 7, "enqueued": 123}
    broker.admin.set(booking_key("again"), json.dumps(earlier), px=60_000)
    await run_until_empty(func(work, name="work"))
    assert await job.result(timeout=5) == "done"
    assert not broker.admin.exists(booking_key("again"))


@pytest.mark.parametrize("written", ["", "null", "[]", "{", "[" * 5000, '{"turn": "x", "since": -1}', "\udcff"])
async def test_a_booking_that_makes_no_sense_is_none(
    send: Any, run_until_empty: Any, broker: Any, written: str
) -> None:
    @rate_limited(limiter=bucket(0.1))
    async def work(ctx: Ctx, job: int) -> str:
        return "done"

    job = await send("work", 1, _defer_by=0.001)
    broker.admin.set(booking_key(job.job_id), written.encode(errors="surrogateescape"), px=60_000)
    await run_until_empty(func(work, name="work"))
    assert await job.result(timeout=5) == "done"


async def test_a_semaphores_job_keeps_its_arrival_number(send: Any, make_worker: Any, broker: Any) -> None:
    limiter = AsyncSemaphore(new_name(), capacity=1)
    held = await limiter.acquire()

    @rate_limited(limiter=limiter, max_sleep=0)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    worker = make_worker(func(work, name="work"), burst=False)
    job = await send("work", 1)
    running = asyncio.create_task(worker.async_run())
    numbers = set()
    for _ in range(30):
        await asyncio.sleep(0.02)
        written = broker.admin.get(booking_key(job.job_id))
        if written:
            numbers.add(json.loads(written)["turn"])
    assert len(numbers) == 1
    assert worker.jobs_retried > 1
    await limiter.release(held)
    assert await job.result(timeout=5, poll_delay=0.02) == 1
    running.cancel()


async def test_people_can_ask_where_a_job_waits(send: Any, make_worker: Any, broker: Any) -> None:
    name = new_name()
    limiter = AsyncTokenBucket(name, capacity=1, refill_frequency=3, connection=broker.url)

    @rate_limited(limiter=limiter, max_sleep=0)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    async def waiting() -> dict[int | None, Whereabouts]:
        found = [await where_is_async(job.job_id, connection=broker.url) for job in jobs]
        return {here.place: here for here in found if here}

    async def places() -> set[int | None]:
        return set(await waiting())

    jobs = [await send("work", number) for number in range(3)]
    running = asyncio.create_task(make_worker(func(work, name="work"), burst=False).async_run())
    await eventually(places, {1, 2})
    third = (await waiting())[2]
    assert (third.limiter, third.job_id in {job.job_id for job in jobs}) == (name, True)
    assert 3 < (third.turn_in or 0) <= 6
    await eventually(places, {1})
    running.cancel()
