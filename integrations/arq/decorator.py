"""The decorator of job functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from steindamm.integrations.arq.delivery import Delivery
from steindamm.integrations.arq.due import bare, is_due, terms_here
from steindamm.integrations.arq.entry import FACTS
from steindamm.integrations.job_limits import ASYNC, JobLimit

Function = TypeVar("Function", bound=Callable[..., Coroutine[Any, Any, Any]])

DEFAULT_MAX_SLEEP = 1.0


def rate_limited(
    *,
    limiter: Any = None,
    cost: Any = None,
    max_sleep: float = DEFAULT_MAX_SLEEP,
    max_deferral: float | None = None,
    throttle_on: Any = None,
) -> Callable[[Function], Function]:
    """Let the jobs of a function start when a limiter lets them.

    Give the function, or the method, to a worker as before. Called directly, in a test or by the code of another job,
    it runs at once.

    Example:
        >>> from steindamm import AsyncTokenBucket
        >>> from steindamm.integrations.arq import rate_limited
        >>> def of_customer(customer, mails):
        ...     return AsyncTokenBucket(name=f"customer {customer}", connection="redis://localhost")
        >>> @rate_limited(limiter=of_customer, cost=lambda customer, mails: len(mails), max_deferral=3600)
        ... async def send(ctx, customer, mails):
        ...     return len(mails)

    Parameters:
        limiter: An async limiter, or a list of several, or a function of the job's arguments (without the context) that
            returns either, or None for a job that is not limited.
        cost: Tokens that a job takes, or a function of the job's arguments that returns them; by default what
            the limiter takes.
        max_sleep: The longest wait, in seconds, for which a job stays in the worker. It counts towards the job's
            timeout. At most half of the worker's places are taken by jobs that stay.
        max_deferral: Seconds after its first deferral at which a job that still may not start fails with
            `MaxSleepExceededError`; None for never.
        throttle_on: Errors of the function that mean that a server said "not now": an error class, several, or a
            mapping of them to functions that read from an error for how many seconds. They close the limiter, as
            `steindamm.Throttled` always does, and the job comes back after it, without a try.

    Raises:
        TypeError: The function is no coroutine function, or is limited already; the limiter is none, or a sync one.
        ValueError: A setting is out of its bounds.
    """
    limit = JobLimit(limiter, cost, max_sleep, max_deferral, throttle_on, kinds=ASYNC)
    return lambda function: limited(function, limit)


def limited(function: Function, limit: JobLimit) -> Function:
    """The function whose jobs start within the limit."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{function!r} is no coroutine function, and arq runs no others")
    if hasattr(bare(function), "steindamm_limit"):
        raise TypeError(f"{bare(function).__qualname__} is limited already: a function takes one limit")

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        place = place_of_context(args)
        ctx = None if place is None else args[place]
        if not is_due(limit, run.__qualname__, ctx):
            return await function(*args, **kwargs)
        if place is None or ctx is None:
            raise without_context(run)
        claim = limit.claim(args[place + 1 :], kwargs, ctx["job_id"])
        return await Delivery(limit, claim, ctx, terms_here()).run(functools.partial(function, *args, **kwargs))

    run.steindamm_limit = limit  # type: ignore[attr-defined]
    run.steindamm_body = run, function  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def body_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a limited function runs when it may; None for any other, be it one that was put around a limited one."""
    limited, body = getattr(function, "steindamm_body", (None, None))
    return body if limited is function else None


def place_of_context(args: Sequence[Any]) -> int | None:
    """Where arq's context stands among a call's arguments: first, or in a method second; None where nowhere."""
    return next((place for place, value in enumerate(args[:2]) if is_context(value)), None)


def is_context(value: object) -> bool:
    """Whether it is a context that arq has made for a job."""
    return isinstance(value, dict) and value.keys() >= FACTS


def without_context(function: Callable[..., Any]) -> TypeError:
    """What is said where a limited function is called as a job's, and arq's context is missing."""
    return TypeError(
        f"{function.__qualname__} is limited, and neither its first argument nor its second is arq's context; "
        "a decorator that replaces the context goes below rate_limited"
    )
