"""What may be decorated and fitted, and what is refused, when it is written and not when a job runs."""

from __future__ import annotations

import asyncio
import inspect
import math
from datetime import timedelta
from typing import Any

import pytest
from arq import cron
from arq.worker import Function, Worker, create_worker, func

from steindamm import AsyncRedisTokenBucket, AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.integrations.arq import rate_limited, rate_limited_worker
from steindamm.integrations.arq.due import terms_here
from steindamm.integrations.arq.terms import WorkerTerms

URL = "redis://localhost:1"


async def work(ctx: dict[str, Any], job: int = 0) -> int:
    """Works."""
    return job


async def told_terms(ctx: dict[str, Any]) -> WorkerTerms:
    return terms_here()


def limit_of(function: Any) -> Any:
    return function.coroutine.steindamm_limit


class TestTheDecorator:
    def test_the_function_stays_what_it_was_for_arq_and_for_readers(self) -> None:
        limited = rate_limited(limiter=AsyncTokenBucket("declared"))(work)
        assert inspect.iscoroutinefunction(limited)
        assert (func(limited).name, limited.__doc__) == ("work", "Works.")
        assert inspect.signature(limited) == inspect.signature(work)

    async def test_called_directly_it_runs_at_once(self) -> None:
        spent = AsyncTokenBucket("declared and spent", capacity=1, initial_tokens=0, refill_frequency=60)
        limited = rate_limited(limiter=spent)(work)
        for ctx in ({}, None, {"redis": object(), "job_id": "1"}):
            assert await limited(ctx, 7) == 7

    @pytest.mark.parametrize(
        ("limiter", "twin"),
        [
            (SyncTokenBucket("x", connection=URL), "an AsyncTokenBucket here, not its twin SyncTokenBucket"),
            (SyncSemaphore("x", connection=URL), "an AsyncSemaphore here, not its twin SyncSemaphore"),
            (SyncTokenBucket("x"), "an AsyncTokenBucket here, not its twin SyncTokenBucket"),
        ],
    )
    def test_a_sync_limiter_is_refused_with_the_name_of_its_twin(self, limiter: Any, twin: str) -> None:
        with pytest.raises(TypeError, match=twin):
            rate_limited(limiter=limiter)
        with pytest.raises(TypeError, match=twin):
            rate_limited_worker(limiter=limiter)

    @pytest.mark.parametrize("function", [lambda ctx: 1, print, AsyncTokenBucket, func(work), "work"])
    def test_what_is_no_coroutine_function_is_refused(self, function: Any) -> None:
        with pytest.raises(TypeError, match="is no coroutine function"):
            rate_limited()(function)

    def test_a_function_takes_one_limit(self) -> None:
        with pytest.raises(TypeError, match="work is limited already"):
            rate_limited()(rate_limited()(work))

    @pytest.mark.parametrize(
        ("settings", "error", "said"),
        [
            ({"limiter": "api"}, TypeError, "limiter must be a limiter, or a function"),
            ({"limiter": AsyncTokenBucket}, TypeError, "limiter must be a limiter, or a function"),
            ({"cost": 2}, TypeError, "cost needs a limiter"),
            ({"limiter": AsyncTokenBucket("x", capacity=2), "cost": 3}, ValueError, "cost must not exceed capacity"),
            ({"limiter": AsyncSemaphore("x"), "cost": 1}, TypeError, "cost must be left out for a semaphore"),
            ({"limiter": work}, TypeError, "limiter must be a plain function"),
            ({"limiter": AsyncTokenBucket("x"), "cost": work}, TypeError, "cost must be a plain function"),
            ({"max_sleep": -1}, ValueError, "max_sleep"),
            ({"max_sleep": math.nan}, ValueError, "max_sleep"),
            ({"max_deferral": "an hour"}, TypeError, "max_deferral"),
        ],
    )
    def test_a_wrong_setting_is_named(self, settings: dict[str, Any], error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            rate_limited(**settings)
        with pytest.raises(error, match=said):
            rate_limited_worker(**settings)


class TestTheWorkersSettings:
    def test_functions_stay_what_they_are_in_any_form(self) -> None:
        @rate_limited_worker(limiter=AsyncRedisTokenBucket("declared", connection=URL))
        class WorkerSettings:
            functions = (work, func(work, name="named", timeout=5, max_tries=2), f"{__name__}.work")
            cron_jobs = (cron(work, hour=3),)

        plain, named, imported = WorkerSettings.functions
        assert all(isinstance(function, Function) for function in WorkerSettings.functions)
        assert [plain.name, named.name, imported.name] == ["work", "named", f"{__name__}.work"]
        assert (named.timeout_s, named.max_tries) == (5, 2)
        assert (WorkerSettings.cron_jobs[0].name, WorkerSettings.cron_jobs[0].hour) == ("cron:work", 3)
        limits = {limit_of(function) for function in (*WorkerSettings.functions, *WorkerSettings.cron_jobs)}
        assert len(limits) == 1

    def test_a_dict_is_left_alone(self) -> None:
        settings = {"functions": [work], "max_jobs": 3}
        fitted = rate_limited_worker()(settings)
        assert settings == {"functions": [work], "max_jobs": 3}
        assert fitted["max_jobs"] == 3
        assert isinstance(fitted["functions"][0], Function)

    def test_a_functions_own_limit_stays(self) -> None:
        mine, general = AsyncTokenBucket("mine"), AsyncTokenBucket("general")
        fitted = rate_limited_worker(limiter=general)({"functions": [rate_limited(limiter=mine)(work), work]})
        assert [limit_of(function).limiter for function in fitted["functions"]] == [mine, general]

    def test_without_a_limiter_others_are_not_limited(self) -> None:
        [function] = rate_limited_worker()({"functions": [work]})["functions"]
        assert not hasattr(function.coroutine, "steindamm_limit")

    @pytest.mark.parametrize(
        ("settings", "terms"),
        [
            ({}, WorkerTerms(retry_jobs=True, max_jobs=10, timeout=300)),
            ({"retry_jobs": False, "max_jobs": 3}, WorkerTerms(retry_jobs=False, max_jobs=3, timeout=300)),
            ({"job_timeout": timedelta(minutes=1)}, WorkerTerms(timeout=60)),
            ({"job_timeout": None}, WorkerTerms(timeout=math.inf)),
        ],
    )
    async def test_jobs_know_what_the_worker_does_with_them(self, settings: dict[str, Any], terms: WorkerTerms) -> None:
        functions = [told_terms, func(told_terms, name="brief", timeout=2)]
        fitted = rate_limited_worker()({"functions": functions, **settings})
        assert [(await function.coroutine({})) for function in fitted["functions"]] == [
            terms,
            WorkerTerms(terms.retry_jobs, terms.max_jobs, timeout=2, is_own=True),
        ]
        assert terms_here() == WorkerTerms()

    async def test_a_limited_function_called_without_arqs_context_is_refused(self) -> None:
        limiter = AsyncTokenBucket("no context", capacity=5, connection=URL)
        [function] = rate_limited_worker()({"functions": [rate_limited(limiter=limiter)(work)]})["functions"]
        with pytest.raises(TypeError, match=r"^work is limited, and neither its first argument"):
            await function.coroutine({})

    def test_settings_are_fitted_once(self) -> None:
        fitted = rate_limited_worker()({"functions": [work]})
        with pytest.raises(TypeError, match="work is fitted already"):
            rate_limited_worker()(fitted)

    @pytest.mark.parametrize("function", [print, lambda ctx: 1, 5])
    def test_a_function_that_arq_would_refuse_is_refused(self, function: Any) -> None:
        with pytest.raises(TypeError, match="is not a coroutine function"):
            rate_limited_worker()({"functions": [function]})
        with pytest.raises(TypeError, match=r"cron_jobs must hold what arq\.cron returns"):
            rate_limited_worker()({"cron_jobs": [function]})

    async def test_settings_without_functions_are_arqs_to_refuse(self) -> None:
        with pytest.raises(RuntimeError, match="at least one function"):
            create_worker(rate_limited_worker()({}))

    async def test_what_is_fitted_makes_a_worker(self) -> None:
        async def end(ctx: dict[str, Any]) -> None: ...

        @rate_limited_worker()
        class WorkerSettings:
            functions = (work,)
            on_job_end = end
            handle_signals = False

        worker = create_worker(WorkerSettings)
        assert isinstance(worker, Worker)
        assert worker.on_job_end is end

    async def test_hooks_that_are_added_call_the_settings_own(self) -> None:
        called = []

        async def own(ctx: dict[str, Any]) -> None:
            called.append(ctx)

        hooks = "on_startup", "on_job_start", "after_job_end", "on_shutdown"
        fitted = rate_limited_worker()({"functions": [work], **dict.fromkeys(hooks, own)})
        contexts = [{"hook": hook} for hook in hooks]
        for hook, context in zip(hooks, contexts, strict=True):
            await fitted[hook](context)
        assert called == contexts


async def test_the_end_of_a_worker_waits_for_what_is_being_given_back() -> None:
    from steindamm.background import in_background

    given_back = []

    async def give_back() -> None:
        await asyncio.sleep(0.1)
        given_back.append(1)

    in_background(give_back())
    await rate_limited_worker()({"functions": [work]})["on_shutdown"]({})
    assert given_back == [1]
