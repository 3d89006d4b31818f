"""Which call of a limited function is the job's own, and waits for its turn; calls by other code just run.

Fitted settings see to a job's limit themselves, or tell it to the limited function in what runs the job. Elsewhere
the worker knows: it is found by its tasks on the loop, and what runs a job there holds the job's function.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakSet

from arq.cron import CronJob
from arq.worker import Function, Worker

from steindamm.holding import Holding
from steindamm.integrations.arq.terms import ARQS_TERMS, WorkerTerms
from steindamm.integrations.job_limits import JobLimit
from steindamm.loops import EachLoop


class Due(NamedTuple):
    """What a job has to pass before its code runs.

    Parameters:
        job_id: The job.
        limit: Its function's limit; None where it has none, or has been let start.
        terms: How its worker treats it.
    """

    job_id: str | None
    limit: JobLimit | None = None
    terms: WorkerTerms = ARQS_TERMS


_due: ContextVar[Due | None] = ContextVar("steindamm_due", default=None)
_workers: EachLoop[WeakSet[Worker]] = EachLoop(WeakSet)


def holding(due: Due) -> Holding[Due | None]:
    """A block in which a job has to pass this, and nothing else."""
    return Holding(_due, due)


def terms_here() -> WorkerTerms:
    """The terms of the job that runs in this task."""
    told = _due.get()
    return ARQS_TERMS if told is None else told.terms


def is_due(limit: JobLimit, name: str, ctx: Mapping[str, Any] | None) -> bool:
    """Whether a limited function is called as the function of a job: not by other code, or a worker's hook.

    Parameters:
        limit: The function's limit.
        name: The function's name.
        ctx: The job's context; None where the call has none.
    """
    told = _due.get()
    if told is not None and (ctx is None or ctx["job_id"] == told.job_id):
        return told.limit is limit
    if ctx is None:
        return _is_run_by_a_worker(name)
    if _worker_in(asyncio.current_task(), Worker.run_job):
        return False
    function = _function_of(ctx["job_id"])
    return function is None or limit_of(function.coroutine) is limit


def starting_worker() -> Worker | None:
    """The worker that calls its hook `on_startup` in this task."""
    return _worker_in(asyncio.current_task(), Worker.main)


def limit_of(coroutine: Callable[..., Any]) -> JobLimit | None:
    """The limit of a job's function, whatever stands around it.

    `functools.wraps` hands it on. Decorators that do without are known by what they hold: tools for tracing put such
    around all functions of a worker.
    """
    functions = [bare(coroutine)]
    for function in functions:
        if hasattr(function, "steindamm_limit"):
            limit: JobLimit = function.steindamm_limit
            return limit
        functions += [held for held in _decorated_by(function) if held not in functions]
    return None


def bare(function: Any) -> Any:
    """A function without the arguments that were bound to it."""
    return function.func if isinstance(function, functools.partial) else function


def _decorated_by(function: Any) -> Iterator[Any]:
    """What a decorator holds, under a name of its own. A job that calls a function calls it by the function's name."""
    if not hasattr(function, "__code__"):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            held = bare(cell.cell_contents)
            if inspect.iscoroutinefunction(held) and getattr(held, "__name__", None) != name:
                yield held


def _function_of(job_id: str) -> Function | CronJob | None:
    """The function of a job that runs on this loop; None where no worker tells."""
    workers = _workers.here()
    function = _told_by(workers, job_id)
    if function is None:
        workers.update(_working())
        function = _told_by(workers, job_id)
    return function


def _told_by(workers: Iterable[Worker], job_id: str) -> Function | CronJob | None:
    tasks = [worker.tasks[job_id] for worker in workers if job_id in worker.tasks]
    told = (inspect.getcoroutinelocals(coroutine).get("function") for task in tasks for coroutine in _coroutines(task))
    return next((function for function in told if isinstance(function, (Function, CronJob))), None)


def _coroutines(task: asyncio.Task[Any]) -> Iterator[Any]:
    """What a task runs, and all that this waits for: tools for tracing put a coroutine of theirs around `run_job`."""
    coroutine: Any = task.get_coro()
    while inspect.iscoroutine(coroutine):
        yield coroutine
        coroutine = coroutine.cr_await


def _working() -> Iterator[Worker]:
    """The workers on this loop."""
    for task in asyncio.all_tasks():
        worker = _worker_in(task, Worker.main)
        if worker is not None:
            yield worker


def _worker_in(task: asyncio.Task[Any] | None, method: Callable[..., Any]) -> Worker | None:
    """The worker that runs this method of itself as a task. In `run_job` it calls the settings' hooks."""
    if task is None or getattr(task.get_coro(), "__name__", None) != method.__name__:
        return None
    worker = inspect.getcoroutinelocals(task.get_coro()).get("self")  # type: ignore[arg-type]
    return worker if isinstance(worker, Worker) else None


def _is_run_by_a_worker(name: str) -> bool:
    """Whether this task is that of a job whose function has this name."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    if task is None or getattr(task.get_coro(), "__qualname__", None) != name:
        return False
    return any(task in worker.job_tasks.values() for worker in _working())
