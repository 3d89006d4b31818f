"""The middleware: what limits an actor's jobs, and what happens around each of them."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import current_thread, local
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from dramatiq import Actor, Broker, Message, MessageProxy, Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, MiddlewareError, ShutdownNotifications, TimeLimit

from steindamm.errors import MaxSleepExceededError, NoTokensAvailableError
from steindamm.integrations.bodies import put_off
from steindamm.integrations.bookings import HEADER, Booking
from steindamm.integrations.decisions import Decision, Defer, Fail, Start, permit_of
from steindamm.integrations.dramatiq.deferral import (
    DeferralRefusedError,
    Deferred,
    hush_worker,
    note_sending,
    send_back,
)
from steindamm.integrations.dramatiq.errands import Errands
from steindamm.integrations.dramatiq.fetched import Fetched
from steindamm.integrations.dramatiq.gate import Gate
from steindamm.integrations.dramatiq.job import Job
from steindamm.integrations.dramatiq.local_limiters import warn_of_local
from steindamm.integrations.dramatiq.returns import Returns
from steindamm.integrations.dramatiq.threads import Threads
from steindamm.integrations.job_limits import JobLimit
from steindamm.integrations.waiting import note_end
from steindamm.running import running

logger = logging.getLogger("steindamm.dramatiq")

LOOK = int(os.environ.get("dramatiq_worker_timeout", "100"))  # noqa: SIM112
"""Milliseconds after which a worker looks into an empty queue again. Dramatiq's own default is a second."""
OPTIONS = ("limiter", "cost", "max_sleep", "max_deferral", "throttle_on")
FINAL = (MaxSleepExceededError, NoTokensAvailableError, DeferralRefusedError)
"""Errors that reach Dramatiq only when no wait helps any more: a job that raises one is not retried."""


class LimitOptionError(MiddlewareError, ValueError):
    """An actor is declared with options for its limit that can't be meant.

    It is an error of the kind that Dramatiq lets through to who declares the actor.
    """


class _Here(local):
    """This thread's job."""

    job: Job | None = None


class RateLimitMiddleware(Middleware):
    """Lets the jobs of a broker's actors start when their limiters let them.

    Add it before the actors are declared; it takes its place in front of `TimeLimit` by itself. Actors then
    take the options below. Calling an actor like a function (``actor(…)``) is not limited.

    Example:
        >>> import dramatiq
        >>> from dramatiq.brokers.stub import StubBroker
        >>> from steindamm import SyncTokenBucket
        >>> from steindamm.integrations.dramatiq import RateLimitMiddleware
        >>> broker = StubBroker()
        >>> broker.add_middleware(RateLimitMiddleware())
        >>> def of_customer(customer, *_):
        ...     return SyncTokenBucket(name=f"customer {customer}", connection="redis://localhost")
        >>> @dramatiq.actor(broker=broker, limiter=of_customer, cost=lambda customer, mails: len(mails))
        ... def send(customer, mails):
        ...     return len(mails)

    Parameters:
        limiter: A sync limiter, or a list of several, or a function of the job's arguments that returns either (or
            None: this job is not limited). Given here, it is shared by all actors that name none; an actor with
            ``limiter=None`` is not limited.
        cost: Of an actor: tokens that a job takes, or a function of the job's arguments that returns them.
        max_sleep: The longest wait, in seconds, for which a job keeps its thread, while others are free.
        max_deferral: Seconds after its first deferral at which a job that still may not start fails with
            `MaxSleepExceededError`, without a retry; None for never.
        throttle_on: Errors of the actor's function that mean that a server said "not now": an error class, several,
            or a mapping of them to functions that read from an error for how many seconds. They close the limiter,
            as `steindamm.Throttled` always does, and the job comes back after it, without a retry.

    Raises:
        LimitOptionError: An actor is declared with a limiter that is none, or an async one, or with a setting
            out of its bounds, or the middleware was added twice.
    """

    def __init__(
        self,
        limiter: Any = None,
        *,
        max_sleep: float = 0.05,
        max_deferral: float | None = None,
        throttle_on: Any = None,
    ) -> None:
        self._defaults = {
            "limiter": limiter,
            "cost": None,
            "max_sleep": max_sleep,
            "max_deferral": max_deferral,
            "throttle_on": throttle_on,
        }
        JobLimit(**self._defaults)
        self._limits: WeakKeyDictionary[Actor[..., Any], JobLimit] = WeakKeyDictionary()
        self._bypassing: WeakSet[Actor[..., Any]] = WeakSet()
        self._here = _Here()
        self._fetched = Fetched()
        self._open(threads=1)

    def _open(self, threads: int) -> None:
        self._threads = Threads(threads)
        self._gate = Gate(self._threads)
        self._errands = Errands()
        self._returns = Returns(self._threads, self._fetched)

    @property
    def actor_options(self) -> set[str]:
        """The options that it gives to actors."""
        return set(OPTIONS)

    # Declaration

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Refuse what can't be meant."""
        try:
            self._limit_of(actor)
        except (TypeError, ValueError) as error:
            raise LimitOptionError(f"actor {actor.actor_name!r}: {error}") from error
        if sum(isinstance(middleware, RateLimitMiddleware) for middleware in broker.middleware) > 1:
            raise LimitOptionError("RateLimitMiddleware is added twice to the same broker: each job would ask twice")

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any] | str) -> None:
        """Limit an actor. Version 1 names those that were declared before the middleware was added."""
        if isinstance(actor, str):
            actor = broker.get_actor(actor)
        self.before_declare_actor(broker, actor)
        self._limits[actor] = self._limit_of(actor)
        actor.fn = self._limited(actor)
        throws = actor.options.get("throws") or ()
        actor.options["throws"] = (*(throws if isinstance(throws, tuple) else (throws,)), *FINAL)

    def _limit_of(self, actor: Actor[..., Any]) -> JobLimit:
        return JobLimit(**{option: actor.options.get(option, default) for option, default in self._defaults.items()})

    # The worker

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """Take the right place."""
        self._take_place(broker)

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Get ready for its threads."""
        self._take_place(broker)
        self._open(worker.worker_threads)
        self._lose_nothing(broker)
        hush_worker()
        warn_of_local(limit.limiter for limit in self._limits.values())

    def _lose_nothing(self, broker: Broker) -> None:
        """Look after what Redis sends, and what RabbitMQ is sent; nobody needs the client of a broker he has not."""
        if "dramatiq.brokers.redis" in sys.modules:
            from steindamm.integrations.dramatiq.careful_consumer import consume_carefully  # noqa: PLC0415

            consume_carefully(broker, self._fetched)
        if "dramatiq.brokers.rabbitmq" in sys.modules:
            from steindamm.integrations.dramatiq.confirming import confirm_deliveries  # noqa: PLC0415

            confirm_deliveries(broker)

    def _take_place(self, broker: Broker) -> None:
        """Stand before whatever interrupts a thread: asking and releasing must not be cut short."""
        interrupting = [other for other in broker.middleware if isinstance(other, (TimeLimit, ShutdownNotifications))]
        order = broker.middleware
        if interrupting and order.index(interrupting[0]) < order.index(self):
            order = [other for other in order if other is not self]
            order.insert(order.index(interrupting[0]), self)
            broker.middleware = order

    def after_consumer_thread_boot(self, broker: Broker, thread: Any) -> None:
        """Look into the queues of limited actors more often than once a second."""
        limited_queues = {actor.queue_name for actor, limit in self._limits.items() if not limit.is_open}
        if q_name(thread.queue_name) in limited_queues:
            thread.worker_timeout = min(thread.worker_timeout, LOOK)

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        """Expect a job that waits in this worker's memory from now on.

        Not so in tests: a stub broker's `join` looks for jobs that failed only where the long way ends.
        """
        self._fetched.delayed(message)
        if HEADER in message.options and not isinstance(broker, StubBroker):
            self._returns.expect(current_thread(), message)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Let nobody wait any longer."""
        self._returns.close()
        self._gate.close()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Nobody is interrupted any more."""
        self._errands.close()

    # A job

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Know what is sent, should the broker not say that it has it."""
        note_sending(message)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Let a job start, or send it back. Dramatiq would run it after any error but its own: none may escape."""
        self._end(message)
        actor = broker.actors.get(message.actor_name)
        limit = self._limits.get(actor) if actor is not None else None
        if actor is None or limit is None or message.failed:
            return
        job = Job(message, actor, limit, Booking.read(message.options.pop(HEADER, None)))
        decision = self._decide(job)
        if isinstance(decision, Defer):
            sent = send_back(broker, message, job.claim, decision)
            if isinstance(sent, Deferred):
                raise sent
            decision = sent
        note_end(job.claim, job.booking)
        if isinstance(decision, Start):
            job.start = decision
        elif isinstance(decision, Fail):
            job.error = decision.error
        job.begin()
        self._here.job = job
        self._threads.run()

    def _decide(self, job: Job) -> Decision | None:
        try:
            left = job.booking.left(time.time())
            if left > 0:
                return Defer(left, job.booking)
            job.claim = job.limit.claim(job.message.args, job.message.kwargs, job.message.message_id)
            return None if job.claim is None else self._gate.ask(job.limit, job.claim, job.booking)
        except Exception as error:  # noqa: BLE001
            return Fail(error)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """End the job."""
        if exception is None:
            self._find_bypass(message)
        self._end(message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """End the job."""
        self._end(message)

    def _find_bypass(self, message: MessageProxy) -> None:
        """Say so, once for each actor, where a job has come to its end and its limited function was not called."""
        job = self._here.job
        if job is None or job.entered or message.failed or (job.start is None and job.error is None):
            return
        job.bypassed = True
        if job.actor not in self._bypassing:
            self._bypassing.add(job.actor)
            logger.error(
                "actor %r is not limited as it should be: its class, %s, calls the function that it was given;"
                " it must call self.fn",
                job.actor.actor_name,
                type(job.actor).__name__,
            )

    def _end(self, message: MessageProxy) -> None:
        """End this thread's job, if there is one; where that is interrupted, it is done again."""
        self._returns.arrived(message)
        job = self._here.job
        if job is not None:
            job.end()
        self._here.job = None
        self._threads.rest()
        self._returns.thread_is_free()

    def _limited(self, actor: Actor[..., Any]) -> Callable[..., Any]:
        """An actor's function; a job whose body meets a "not now", a limiter's or a server's, is sent back."""
        body = actor.fn

        @functools.wraps(body)
        def limited(*args: Any, **kwargs: Any) -> Any:
            job = self._here.job
            if job is None or job.actor is not actor or job.entered:
                return body(*args, **kwargs)
            job.entered = True
            if job.error is not None:
                raise job.error
            try:
                with running(partial(permit_of, job.start)):
                    return body(*args, **kwargs)
            except job.limit.not_now as error:
                outcome = self._errands.do(partial(_put_off, actor.broker, job, error))
            raise outcome

        return limited


def _put_off(broker: Broker, job: Job, error: Exception) -> Exception:
    """Send a job back whose body met a "not now", or find out that it may not wait; what to raise then."""
    outcome: Defer | Deferred | Fail = put_off(job.limit, job.claim, job.booking, error)
    if isinstance(outcome, Defer):
        outcome = send_back(broker, job.message, job.claim, outcome)
    return outcome.error if isinstance(outcome, Fail) else outcome
