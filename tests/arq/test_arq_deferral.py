"""What becomes of a job that must wait: its tries, its id, its place, its result, its keys in Redis."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from arq import cron
from arq.jobs import JobStatus
from arq.worker import Retry, func

from steindamm import AsyncSemaphore, AsyncTokenBucket, MaxSleepExceededError, NoTokensAvailableError
from steindamm.integrations.arq import rate_limited

Ctx = dict[str, Any]


def names() -> Any:
    number = 0
    while True:
        number += 1
        yield f"arq test {time.monotonic_ns()} {number}"


NAMES = names()


def bucket(every: float, capacity: float = 1.0, **settings: Any) -> AsyncTokenBucket:
    """A bucket of its own, in memory."""
    return AsyncTokenBucket(next(NAMES), capacity=capacity, refill_frequency=every, **settings)


def booking_key(job_id: str) -> str:
    return f"arq:steindamm:{job_id}"


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


async def eventually(ask: Any, wanted: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while (found := await ask()) != wanted:
        assert time.monotonic() < end, f"{found!r} did not become {wanted!r}"
        await asyncio.sleep(0.02)


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
    limiter = AsyncSemaphore(next(NAMES), capacity=1)
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


async def test_a_cron_job_starts_at_its_turn_and_not_a_minute_later(run_until_empty: Any, broker: Any) -> None:
    ran = []

    @rate_limited(limiter=bucket(0.4, initial_tokens=0), max_sleep=0)
    async def report(ctx: Ctx) -> None:
        ran.append(ctx["job_try"])

    after = []

    async def own_hook(ctx: Ctx) -> None:
        after.append(ctx["job_id"])

    job = cron(report, name="report", hour=3, run_at_startup=True, unique=False)
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

    slot = AsyncSemaphore(next(NAMES), capacity=1)

    @rate_limited(limiter=slot, max_sleep=0)
    async def hold(ctx: Ctx, job: int) -> int:
        await asyncio.sleep(0.1)
        return job

    jobs = [await send(name, number) for name in ("work", "hold") for number in range(3)]
    worker = await run_until_empty(func(work, name="work"), func(hold, name="hold"), retry_jobs=False)
    assert [await job.result(timeout=5) for job in jobs] == [0, 1, 2] * 2
    assert worker.jobs_retried == 0


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
    slot = AsyncSemaphore(next(NAMES), capacity=1)
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
    quota = AsyncTokenBucket(next(NAMES), capacity=1, refill_amount=0, refill_frequency=0)

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
    limiter = AsyncSemaphore(next(NAMES), capacity=1)
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
