"""The base class of limited tasks."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn

from celery import Celery, Task
from celery.exceptions import Ignore
from kombu.utils.imports import symbol_by_name

from steindamm.integrations.bodies import Closing, away, put_off, reading
from steindamm.integrations.bookings import HEADER, Booking
from steindamm.integrations.celery.handing_back import copied_headers, hand_back, longest_hop
from steindamm.integrations.celery.monitoring import rank_throttled
from steindamm.integrations.celery.not_now import NotNow
from steindamm.integrations.celery.passing import Passing
from steindamm.integrations.decisions import Defer, Fail, again, decide, permit_of, release
from steindamm.integrations.job_limits import Claim, JobLimit
from steindamm.integrations.waiting import note_end, note_wait
from steindamm.permits import Permit
from steindamm.running import running

logger = logging.getLogger("steindamm.celery")

PATIENT = {"max_retries": 60, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}
"""A pool process that has to send a job back waits for a broker that is away, for about a minute."""
WAITING_ROOM = "steindamm.integrations.celery.waiting_room:WaitingRoom"
CELERYS_OWN = "celery."
"""How the names of Celery's own tasks begin, which are never limited."""

rank_throttled()


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
        limiter: A sync limiter, or a list of several, or a function of the job's arguments that returns either (or
            None: this job is not limited).
        cost: Tokens that a job takes, or a function of the job's arguments that returns them.
        max_sleep: The longest wait, in seconds, for which a job keeps its pool process, while others are free.
        max_deferral: Seconds after its first deferral at which a job that still may not start fails with
            `MaxSleepExceededError`; None for never.
        throttle_on: Errors of the task's code that mean that a server said "not now": an error class, several, or a
            mapping of them to functions that read from an error for how many seconds. They close the limiter, as
            `steindamm.Throttled` always does, and the job comes back after it, without a retry.

    Raises:
        TypeError: The limiter is none, or an async one; raised when the task is made.
        ValueError: A setting is out of its bounds.
    """

    abstract = True
    Request: Any

    limiter: Any = None
    cost: Any = None
    max_sleep: float = 0.05
    max_deferral: float | None = None
    throttle_on: Any = None
    job_limit: ClassVar[JobLimit] = JobLimit()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._set_job_limit()
        if "run" in vars(cls):
            cls.run = _limited(vars(cls)["run"])

    @classmethod
    def bind(cls, app: Celery) -> Any:
        """Tell the app's workers to hold jobs that wait; what the app's annotations say about the limit counts."""
        app.steps["consumer"].add(WAITING_ROOM)
        bound = super().bind(app)
        cls._set_job_limit()
        return bound

    @classmethod
    def _set_job_limit(cls) -> None:
        limiter, cost = (_function_or_value(cls, setting) for setting in ("limiter", "cost"))
        limit = JobLimit(limiter, cost, cls.max_sleep, cls.max_deferral, cls.throttle_on)
        cls.job_limit = JobLimit() if (cls.name or "").startswith(CELERYS_OWN) else limit

    def start_strategy(self, app: Celery, consumer: Any, **options: Any) -> Any:
        """Put the gate in front of the task's request class, whichever of its bases that comes from."""
        from steindamm.integrations.celery.request import gated  # noqa: PLC0415

        self.Request = gated(symbol_by_name(self.Request))  # type: ignore[no-untyped-call]
        return super().start_strategy(app, consumer, **options)

    def run_limited(self, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one job in a pool process; one whose body meets a "not now" goes back to the queue."""
        passing = self.request.get(HEADER)
        if not isinstance(passing, Passing):
            return self._run_ungated(body, args, kwargs)
        if passing.error is not None:
            raise passing.error
        try:
            with running(partial(self._permit, passing, self.request)):
                return body(*args, **kwargs)
        except self.job_limit.not_now as error:
            self._put_off(passing, error)

    def _permit(self, passing: Passing, request: Any) -> Permit | None:
        claim = self._claim(passing, request)
        return None if claim is None else passing.permit_at(claim.limiter)

    def _claim(self, passing: Passing, request: Any) -> Claim | None:
        return None if passing.permit is None else self.job_limit.claim(request.args, request.kwargs, request.id)

    def _put_off(self, passing: Passing, error: Exception) -> NoReturn:
        """What the job's code has met sends it back to its queue, or lets it fail."""
        limit, booking, claim = self.job_limit, passing.booking, self._claim(passing, self.request)
        done: Ignore = Ignore()
        if claim is None or passing.reaches(claim.limiter):
            outcome = put_off(limit, claim, booking, error)
        else:
            told = reading(limit, claim, booking, error)
            if isinstance(told, Closing):
                done = NotNow({limiter.name: pause for limiter, pause in told.pauses.items()})
                outcome = away(told, limit, booking, claim.limiter.name)
            else:
                outcome = told
        if isinstance(outcome, Fail):
            raise outcome.error
        self._hand_back(claim, outcome, passing.content_type)
        raise done

    def _run_ungated(self, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a job that has met no gate: its task has a strategy of its own, or came after the worker's start."""
        booking = Booking.read(self.request.get(HEADER))
        claim = self.job_limit.claim(args, kwargs, self.request.id)
        decision = None if claim is None else decide(self.job_limit, claim, booking, accept=self.max_sleep)
        if isinstance(decision, Fail):
            raise decision.error
        if isinstance(decision, Defer):
            self._hand_back(claim, decision)
            raise Ignore
        note_end(claim, booking)
        passing = {HEADER: Passing(booking, permit=permit_of(decision))}
        self.request.update(passing, headers={**copied_headers(self.request), **passing})
        if claim is None or decision is None:
            return self.run_limited(body, args, kwargs)
        time.sleep(decision.wait)
        try:
            if decision.is_missed:
                self._hand_back(claim, Defer(0.0, again(claim, booking, decision)))
                raise Ignore
            return self.run_limited(body, args, kwargs)
        finally:
            release(claim, decision)

    def _hand_back(self, claim: Claim | None, defer: Defer, content_type: str | None = None) -> None:
        request = self.request
        wait = min(defer.wait, longest_hop(self.app))
        hand_back(
            self,
            request,
            defer.booking,
            args=request.args,
            kwargs=request.kwargs,
            countdown=wait,
            content_type=content_type,
            retry_policy=PATIENT,
        )
        note_wait(claim, defer.booking, defer)
        logger.info(
            "Task %s[%s] is back in its queue for %.3fs, for limiter %r",
            self.name, request.id, wait, defer.booking.limiter,
        )  # fmt: skip


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

    del limited.__wrapped__  # what Celery finds there, an annotation puts in the place of all this
    return limited
