"""The base class of limited tasks."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from typing import Any, ClassVar

from celery import Celery, Task
from celery.exceptions import Ignore

from steindamm.errors import MaxSleepExceededError
from steindamm.integrations.bookings import HEADER, Booking
from steindamm.integrations.celery.handing_back import hand_back, longest_hop
from steindamm.integrations.celery.passing import FAILURE, PASSED
from steindamm.integrations.celery.waiting_room import WaitingRoom
from steindamm.integrations.decisions import Defer, Fail, Start, decide, defer_refused_body, release
from steindamm.integrations.job_limits import JobLimit

logger = logging.getLogger("steindamm.celery")


class RateLimitedTask(Task):
    """A task whose jobs start when its limiter lets them.

    Give it as ``base=`` to a task, as ``Celery(task_cls=…)`` to a whole app, or inherit from it beside other
    bases. Eager jobs and direct calls (``task(…)``) run like plain functions.

    Example:
        >>> from celery import Celery
        >>> from steindamm import SyncTokenBucket
        >>> from steindamm.integrations.celery import RateLimitedTask
        >>> app = Celery("shop")
        >>> def of_customer(customer, *_):
        ...     return SyncTokenBucket(name=f"customer {customer}", connection="redis://localhost")
        >>> @app.task(base=RateLimitedTask, limiter=of_customer, cost=lambda customer, mails: len(mails))
        ... def send(customer, mails):
        ...     return len(mails)

    Parameters:
        limiter: A sync limiter, or a function of the job's arguments that returns one (or None: this job is not
            limited).
        cost: Tokens that a job takes, or a function of the job's arguments that returns them.
        max_sleep: The longest wait, in seconds, for which a job keeps its pool process.
        max_deferral: Seconds after its first deferral at which a job that still may not start fails with
            `MaxSleepExceededError`; None for never.

    Raises:
        TypeError: The limiter is none, or an async one; raised when the task is made.
        ValueError: A setting is out of its bounds.
    """

    abstract = True
    Request = "steindamm.integrations.celery.request:GatedRequest"

    limiter: Any = None
    cost: Any = None
    max_sleep: float = 0.05
    max_deferral: float | None = None
    job_limit: ClassVar[JobLimit] = JobLimit()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        limiter, cost = (_function_or_value(cls, setting) for setting in ("limiter", "cost"))
        cls.job_limit = JobLimit(limiter, cost, cls.max_sleep, cls.max_deferral)
        if "run" in vars(cls):
            cls.run = _limited(vars(cls)["run"])

    @classmethod
    def bind(cls, app: Celery) -> Any:
        """Tell the app's workers to hold jobs that wait."""
        app.steps["consumer"].add(WaitingRoom)
        return super().bind(app)

    def run_limited(self, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one job in a pool process; one whose body meets a limiter that refuses goes back to the queue."""
        header = self.request.get(HEADER)
        header = header if isinstance(header, dict) else {}
        if FAILURE in header:
            raise header[FAILURE]
        if PASSED not in header:
            return self._run_ungated(body, args, kwargs)
        return self._run_deferrable(body, args, kwargs, Booking.read(header[PASSED]))

    def _run_deferrable(
        self, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], booking: Booking
    ) -> Any:
        try:
            return body(*args, **kwargs)
        except MaxSleepExceededError as error:
            outcome = defer_refused_body(self.job_limit, booking, error)
            if isinstance(outcome, Fail):
                raise
            self._defer(outcome)

    def _run_ungated(self, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a job that has passed no gate: its task has a request class of its own."""
        booking = Booking.read(self.request.get(HEADER))
        claim = self.job_limit.claim(args, kwargs)
        if claim is None:
            return self._run_deferrable(body, args, kwargs, booking)
        decision = decide(self.job_limit, claim, booking, accept=self.max_sleep)
        if isinstance(decision, Fail):
            raise decision.error
        if isinstance(decision, Defer):
            self._defer(decision)
        assert isinstance(decision, Start)  # noqa: S101
        time.sleep(decision.wait)
        try:
            return self._run_deferrable(body, args, kwargs, booking)
        finally:
            release(claim, decision)

    def _defer(self, defer: Defer) -> None:
        wait = min(defer.wait, longest_hop(self.app))
        request = self.request
        hand_back(self, request, defer.booking, args=request.args, kwargs=request.kwargs, countdown=wait)
        logger.info(
            "Task %s[%s] is back in its queue for %.3fs: limiter %r refused",
            self.name, request.id, defer.wait, defer.booking.limiter,
        )  # fmt: skip
        raise Ignore


def _function_or_value(cls: type, setting: str) -> Any:
    """A setting as it was given: a function is none of the task's methods."""
    value = inspect.getattr_static(cls, setting)
    return value.__func__ if isinstance(value, staticmethod) else value


def _limited(run: Any) -> Callable[..., Any]:
    """A task's body that passes through `run_limited` when a worker runs it."""

    @functools.wraps(getattr(run, "__func__", run))
    def limited(self: RateLimitedTask, *args: Any, **kwargs: Any) -> Any:
        body = run.__get__(self, type(self))
        request = self.request
        if request.called_directly or request.is_eager:
            return body(*args, **kwargs)
        return self.run_limited(body, args, kwargs)

    return limited
