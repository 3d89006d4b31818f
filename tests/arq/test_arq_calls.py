"""Which calls of a limited function wait for a turn: those that arq makes, in whatever form it was given the function.

In all workers, with fitted settings and without: elsewhere nobody would know that a limit does not hold.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from arq.worker import Worker, func
from support.arq_limits import bucket, cron_at_startup

from steindamm import AsyncTokenBucket
from steindamm.integrations.arq import rate_limited

Ctx = dict[str, Any]
Form = Callable[[AsyncTokenBucket], Any]

FITTED_OR_NOT = pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "not fitted"])


def with_database(function: Any) -> Any:
    @functools.wraps(function)
    async def run(ctx: Ctx, *args: Any) -> Any:
        return await asyncio.wait_for(function({**ctx, "database": 1}, *args), 5)

    return run


def traced(function: Any) -> Any:
    """Keeps nothing of the function, and knows itself."""
    spans = []

    async def run_traced(ctx: Ctx, *args: Any) -> Any:
        spans.append(run_traced)
        return await function(ctx, *args)

    return run_traced


def in_an_object(function: Any) -> Any:
    @functools.wraps(function)
    async def run(ctx: Ctx, *args: Any) -> Any:
        return await function(SimpleNamespace(**ctx), *args)

    return run


def plain_function(limiter: AsyncTokenBucket) -> Any:
    @rate_limited(limiter=limiter)
    async def work(ctx: Ctx, job: int) -> int:
        return job

    return work


def a_method(limiter: AsyncTokenBucket) -> Any:
    class Mailer:
        @rate_limited(limiter=lambda job: limiter)
        async def work(self, ctx: Ctx, job: int) -> int:
            return job

    return Mailer().work


def a_class_method(limiter: AsyncTokenBucket) -> Any:
    class Mailer:
        @classmethod
        @rate_limited(limiter=lambda job: limiter)
        async def work(cls, ctx: Ctx, job: int) -> int:
            return job

    return Mailer.work


def a_static_method(limiter: AsyncTokenBucket) -> Any:
    class Mailer:
        @staticmethod
        @rate_limited(limiter=limiter)
        async def work(ctx: Ctx, job: int) -> int:
            return job

    return Mailer.work


def a_bound_method_that_is_decorated(limiter: AsyncTokenBucket) -> Any:
    class Mailer:
        async def work(self, ctx: Ctx, job: int) -> int:
            return job

    return rate_limited(limiter=limiter)(Mailer().work)


def a_partial_of_it(limiter: AsyncTokenBucket) -> Any:
    return functools.partial(plain_function(limiter))


def a_partial_that_is_decorated(limiter: AsyncTokenBucket) -> Any:
    async def work(ctx: Ctx, job: int, more: int) -> int:
        return job

    return rate_limited(limiter=limiter)(functools.partial(work, more=1))


def below_another_decorator(limiter: AsyncTokenBucket) -> Any:
    return with_database(plain_function(limiter))


def below_decorators_that_keep_nothing(limiter: AsyncTokenBucket) -> Any:
    return traced(with_database(traced(plain_function(limiter))))


FORMS: list[Form] = [
    plain_function, a_method, a_class_method, a_static_method, a_bound_method_that_is_decorated, a_partial_of_it,
    a_partial_that_is_decorated, below_another_decorator, below_decorators_that_keep_nothing,
]  # fmt: skip


async def taken(limiters: Iterable[AsyncTokenBucket]) -> list[int]:
    return [(await limiter.state()).counters.granted for limiter in limiters]


@FITTED_OR_NOT
async def test_the_limit_holds_for_a_function_in_any_form(send: Any, run_until_empty: Any, fitted: bool) -> None:
    limiters = {form.__name__: bucket(0.1, initial_tokens=0) for form in FORMS}
    jobs = [await send(name, number) for number, name in enumerate(limiters)]
    functions = [func(form(limiters[form.__name__]), name=form.__name__) for form in FORMS]
    await run_until_empty(*functions, fitted=fitted)
    assert [await job.result(timeout=5) for job in jobs] == list(range(len(FORMS)))
    assert dict(zip(limiters, await taken(limiters.values()), strict=True)) == dict.fromkeys(limiters, 1)


@FITTED_OR_NOT
async def test_it_holds_for_cron_jobs(run_until_empty: Any, fitted: bool) -> None:
    limiters = [bucket(0.1), bucket(0.1)]

    @rate_limited(limiter=limiters[0])
    async def report(ctx: Ctx) -> None: ...

    @rate_limited(limiter=limiters[1])
    async def clean_up(ctx: Ctx) -> None: ...

    jobs = [cron_at_startup(function) for function in (report, traced(clean_up))]
    await run_until_empty(cron_jobs=jobs, fitted=fitted)
    assert await taken(limiters) == [1, 1]


@FITTED_OR_NOT
async def test_a_limit_that_can_not_hold_fails_the_job(send: Any, run_until_empty: Any, fitted: bool) -> None:
    job = await send("work", 1)
    await run_until_empty(func(in_an_object(plain_function(bucket(1))), name="work"), fitted=fitted)
    with pytest.raises(TypeError, match=r"work is limited, and neither its first argument nor its second is arq's"):
        await job.result(timeout=5)


async def call_one_by_one(function: Any, ctx: Ctx) -> list[int]:
    return [await function(ctx, number) for number in range(3)]


async def call_all_at_once(function: Any, ctx: Ctx) -> list[int]:
    return await asyncio.gather(*(function(ctx, number) for number in range(3)))


@FITTED_OR_NOT
@pytest.mark.parametrize("call", [call_one_by_one, call_all_at_once])
@pytest.mark.parametrize("around", [lambda function: function, with_database, traced], ids=["", "wrapped", "traced"])
async def test_within_a_job_without_a_limit_it_just_runs(
    send: Any, run_until_empty: Any, fitted: bool, call: Any, around: Any
) -> None:
    """Were it put back, the job would begin again, and do twice what it has done."""
    limiter, begun = bucket(0.2), []
    work = plain_function(limiter)

    async def sign_up(ctx: Ctx) -> list[int]:
        begun.append(ctx["job_try"])
        return await call(work, ctx)

    job = await send("sign_up")
    await run_until_empty(func(around(sign_up), name="sign_up"), func(work, name="work"), fitted=fitted)
    assert await job.result(timeout=5) == [0, 1, 2]
    assert begun == [1]
    assert await taken([limiter]) == [0]


@FITTED_OR_NOT
async def test_so_it_does_within_a_job_that_has_its_name(send: Any, run_until_empty: Any, fitted: bool) -> None:
    limiter = bucket(0.2)

    async def work(ctx: Ctx, job: int) -> int:
        return await plain_function(limiter)(ctx, job)

    work.__qualname__ = plain_function(limiter).__qualname__
    job = await send(work.__qualname__, 1)
    await run_until_empty(work, fitted=fitted)
    assert await job.result(timeout=5) == 1
    assert await taken([limiter]) == [0]


@FITTED_OR_NOT
async def test_so_it_does_where_something_traces_the_worker(
    send: Any, run_until_empty: Any, fitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentry puts a coroutine of its own around the worker's."""
    limiter, begun, run_job = bucket(0.2, initial_tokens=0), [], Worker.run_job
    work = plain_function(limiter)

    async def run_traced(self: Worker, job_id: str, score: int) -> None:
        await run_job(self, job_id, score)

    async def sign_up(ctx: Ctx) -> int:
        begun.append(ctx["job_try"])
        return await work(ctx, 1)

    monkeypatch.setattr(Worker, "run_job", run_traced)
    job = await send("sign_up")
    await run_until_empty(func(sign_up, name="sign_up"), func(work, name="work"), fitted=fitted)
    assert await job.result(timeout=5) == 1
    assert begun == [1]
    assert await taken([limiter]) == [0]


async def test_so_it_does_within_cron_jobs(run_until_empty: Any) -> None:
    limiter = bucket(0.2)
    work = plain_function(limiter)

    async def report(ctx: Ctx) -> None:
        await call_one_by_one(work, ctx)

    for fitted in (True, False):
        job = cron_at_startup(report)
        worker = await run_until_empty(cron_jobs=[job], fitted=fitted)
        assert (worker.jobs_complete, worker.jobs_retried) == (1, 0)
    assert await taken([limiter]) == [0]


@FITTED_OR_NOT
async def test_so_it_does_within_a_hook(send: Any, run_until_empty: Any, fitted: bool) -> None:
    """Were it to wait there, the worker would end of it."""
    limiter = bucket(0.2)
    work = plain_function(limiter)

    async def call(ctx: Ctx) -> None:
        await work(ctx, 0)

    await send("work", 1)
    worker = await run_until_empty(func(work, name="work"), fitted=fitted, on_job_start=call, on_job_end=call)
    assert (worker.jobs_complete, worker.jobs_retried) == (1, 0)
    assert await taken([limiter]) == [1]


@FITTED_OR_NOT
async def test_a_worker_within_a_limited_job_holds_the_limit(
    send: Any, make_worker: Any, run_until_empty: Any, fitted: bool
) -> None:
    limiter = bucket(0.1)
    work = plain_function(limiter)

    @rate_limited(limiter=bucket(0.2))
    async def drain(ctx: Ctx) -> None:
        worker = make_worker(func(work, name="work"), fitted=fitted, queue_name="inner")
        await worker.async_run()

    await send("work", 1, _queue_name="inner")
    await send("drain")
    await run_until_empty(func(drain, name="drain"))
    assert await taken([limiter]) == [1]
