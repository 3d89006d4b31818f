"""The settings of a worker, fitted to run limited jobs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any, TypeVar

from arq.constants import in_progress_key_prefix
from arq.cron import CronJob
from arq.utils import to_seconds
from arq.worker import Function, Retry, func

from steindamm.background import ended_in_background
from steindamm.clock import monotonic
from steindamm.integrations.arq.decorator import DEFAULT_MAX_SLEEP, body_of, is_context, limited, without_context
from steindamm.integrations.arq.deferral import is_deferral
from steindamm.integrations.arq.delivery import Delivery
from steindamm.integrations.arq.due import Due, holding, limit_of, starting_worker
from steindamm.integrations.arq.entry import BROKER_ERRORS
from steindamm.integrations.arq.terms import BEGAN, TERMS, WorkerTerms
from steindamm.integrations.job_limits import ASYNC, JobLimit

logger = logging.getLogger("steindamm.arq")

Settings = TypeVar("Settings")
Context = MutableMapping[Any, Any]
Hook = Callable[[Context], Awaitable[Any]]

IS_PUT_BACK = "steindamm:put back"
SHUTDOWN_PATIENCE = 5.0
"""Seconds that the end of a worker waits for slots that are being given back."""


def rate_limited_worker(
    *,
    limiter: Any = None,
    cost: Any = None,
    max_sleep: float = DEFAULT_MAX_SLEEP,
    max_deferral: float | None = None,
    throttle_on: Any = None,
) -> Callable[[Settings], Settings]:
    """Fit a worker's settings, a class or a dict, to run limited jobs.

    Limited jobs then know what the worker does with them: cron jobs, which arq keeps marked as in progress for
    a minute, come back at their turn; where ``retry_jobs`` is False they wait in the worker; and none waits so
    long that its timeout ends it. The settings' own hooks stay what they are.

    With a limiter, or errors to throttle on, they hold for all functions and cron jobs that have no limit of their own.

    Example:
        >>> from arq import cron
        >>> from steindamm import AsyncSemaphore
        >>> from steindamm.integrations.arq import rate_limited_worker
        >>> async def export(ctx, customer):
        ...     return "exported"
        >>> async def clean_up(ctx):
        ...     return "cleaned up"
        >>> @rate_limited_worker(limiter=AsyncSemaphore(name="database", capacity=5, connection="redis://localhost"))
        ... class WorkerSettings:
        ...     functions = [export]
        ...     cron_jobs = [cron(clean_up, hour=3)]

    Parameters:
        limiter, cost, max_sleep, max_deferral, throttle_on: As for `rate_limited`.

    Raises:
        TypeError: A function is no coroutine function; the settings are fitted already; as for `rate_limited`.
        ValueError: A setting is out of its bounds.
    """
    limit = JobLimit(limiter, cost, max_sleep, max_deferral, throttle_on, kinds=ASYNC)

    def fit(settings: Settings) -> Settings:
        if isinstance(settings, dict):
            return {**settings, **fitted(settings, limit)}  # type: ignore[return-value]
        for setting, value in fitted(vars(settings), limit).items():
            setattr(settings, setting, value)
        return settings

    return fit


def fitted(settings: Any, limit: JobLimit) -> dict[str, Any]:
    """The settings that change."""
    terms = WorkerTerms.of(
        retry_jobs=settings.get("retry_jobs", True),
        max_jobs=settings.get("max_jobs", 10),
        timeout=to_seconds(settings.get("job_timeout", 300)),
    )
    return {
        "functions": [fitted_function(function, limit, terms) for function in settings.get("functions", ())],
        "cron_jobs": [fitted_cron_job(cron_job, limit, terms) for cron_job in settings.get("cron_jobs") or ()],
        "on_startup": on_startup(settings.get("on_startup")),
        "on_job_start": on_job_start(settings.get("on_job_start")),
        "after_job_end": after_job_end(settings.get("after_job_end")),
        "on_shutdown": on_shutdown(settings.get("on_shutdown")),
    }


def fitted_function(given: Any, limit: JobLimit, terms: WorkerTerms) -> Function:
    """A function, as arq takes it in any form, that knows its worker's terms."""
    try:
        function = func(given)
    except RuntimeError as error:
        raise TypeError(str(error)) from None
    return replace(function, coroutine=on_terms(function, limit, terms))


def fitted_cron_job(given: Any, limit: JobLimit, terms: WorkerTerms) -> CronJob:
    """A cron job that knows its worker's terms and leaves word when it is put back."""
    if not isinstance(given, CronJob):
        raise TypeError(f"cron_jobs must hold what arq.cron returns, not {type(given).__name__}")
    coroutine: Any = on_terms(given, limit, terms)

    @functools.wraps(coroutine)
    async def run(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await coroutine(ctx, *args, **kwargs)
        except Retry as retry:
            ctx[IS_PUT_BACK] = is_deferral(retry)
            raise

    return replace(given, coroutine=run)


def on_terms(function: Function | CronJob, limit: JobLimit, terms: WorkerTerms) -> Any:
    """A function's coroutine, limited, which knows its worker's terms."""
    coroutine: Any = function.coroutine
    if hasattr(coroutine, "steindamm_terms"):
        raise TypeError(f"{function.name} is fitted already: rate_limited_worker is given to a worker's settings once")
    passes = limit_of(coroutine)
    if limit.says_anything and passes is None:
        coroutine, passes = limited(coroutine, limit), limit
    if function.timeout_s is not None:
        terms = replace(terms, timeout=function.timeout_s, is_own=True)
    body = body_of(coroutine)
    run: Any = telling(coroutine, passes, terms) if passes is None or body is None else delivering(body, passes, terms)
    functools.update_wrapper(run, coroutine)
    run.steindamm_terms = terms
    return run


def delivering(body: Callable[..., Any], limit: JobLimit, terms: WorkerTerms) -> Any:
    """What runs a limited function's body for each job, when that may start."""

    async def run(ctx: Context, *args: Any, **kwargs: Any) -> Any:
        if not is_context(ctx):
            raise without_context(body)
        delivery = Delivery(limit, limit.claim(args, kwargs, ctx["job_id"]), ctx, terms.at(ctx))
        return await delivery.run(functools.partial(body, ctx, *args, **kwargs))

    return run


def telling(coroutine: Callable[..., Any], passes: JobLimit | None, terms: WorkerTerms) -> Any:
    """What runs the coroutine for each job, and tells the limited function in it, if there is one, what is due."""

    async def run(ctx: Context, *args: Any, **kwargs: Any) -> Any:
        with holding(Due(ctx.get("job_id"), passes, terms.at(ctx))):
            return await coroutine(ctx, *args, **kwargs)

    return run


def on_startup(own: Hook | None) -> Hook:
    """Note the terms of a worker, which may be told others than its settings say."""

    async def hook(ctx: Context) -> None:
        worker = starting_worker()
        if worker is not None:
            ctx[TERMS] = WorkerTerms.of(
                retry_jobs=worker.retry_jobs, max_jobs=worker.max_jobs, timeout=worker.job_timeout_s
            )
        if own is not None:
            await own(ctx)

    return hook


def on_job_start(own: Hook | None) -> Hook:
    """Note when a job's timeout begins to run: its task may come to its first step much later."""

    async def hook(ctx: Context) -> None:
        if own is not None:
            await own(ctx)
        ctx[BEGAN] = monotonic()

    return hook


def after_job_end(own: Hook | None) -> Hook:
    """Let a cron job that was put back start at its turn: it is in progress no more."""

    async def hook(ctx: Context) -> None:
        if ctx.pop(IS_PUT_BACK, False):
            try:
                await ctx["redis"].delete(in_progress_key_prefix + ctx["job_id"])
            except BROKER_ERRORS as error:
                logger.warning("cron job %r starts up to a minute late: %s", ctx["job_id"], type(error).__name__)
        if own is not None:
            await own(ctx)

    return hook


def on_shutdown(own: Hook | None) -> Hook:
    """Let what is being given back arrive before the worker ends."""

    async def hook(ctx: Context) -> None:
        if own is not None:
            await own(ctx)
        await ended_in_background(SHUTDOWN_PATIENCE)

    return hook
