"""Dramatiq: the jobs, each way of limiting them an actor of its own."""

from __future__ import annotations

import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Middleware
from dramatiq.rate_limits import BucketRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks.jobs import bare, calling, journal, using
from benchmarks.jobs.limits_of_jobs import BACKLOG, NEVER_REFUSING, RATE
from steindamm import SyncTokenBucket, current_permit
from steindamm.integrations.dramatiq import RateLimitMiddleware

WITHOUT_END = 1_000_000
SHORTEST_BACKOFF, LONGEST_BACKOFF = 500, 5_000
"""Milliseconds between the tries of those who have to try again."""


class Deliveries(Middleware):
    """Counts what is delivered, before anything else looks at it."""

    def before_process_message(self, broker, message):
        if message.actor_name in COUNTED:
            journal.delivered()


broker = RedisBroker(url=journal.URL)
broker.middleware.insert(0, Deliveries())
broker.add_middleware(CurrentMessage())
broker.add_middleware(RateLimitMiddleware())
dramatiq.set_broker(broker)
backlog = SyncTokenBucket.create(**BACKLOG)
never_refusing = SyncTokenBucket.create(**NEVER_REFUSING)
bucket = BucketRateLimiter(RedisBackend(url=journal.URL), "api", limit=RATE, bucket=1_000)
RETRIES = {"max_retries": WITHOUT_END, "min_backoff": SHORTEST_BACKOFF, "max_backoff": LONGEST_BACKOFF}


@dramatiq.actor
def plain(edge: bool = False) -> None:  # noqa: FBT001, FBT002
    if edge:
        journal.note(journal.EDGE)


@dramatiq.actor
def bare_call(edge: bool = False) -> None:  # noqa: FBT001, FBT002
    bare.call(bare.KEYS)
    if edge:
        journal.note(journal.EDGE)


@dramatiq.actor(limiter=never_refusing)
def open_limit(edge: bool = False) -> None:  # noqa: FBT001, FBT002
    if edge:
        journal.note(journal.EDGE)


@dramatiq.actor(limiter=backlog)
def steindamm(number: int) -> None:
    journal.note(journal.RAN, str(number))


@dramatiq.actor(**RETRIES)
def bucket_rate_limiter(number: int) -> None:
    """Dramatiq's own: raises if refused, and Retries tries again."""
    with bucket.acquire():
        journal.note(journal.RAN, str(number))


@dramatiq.actor(**RETRIES)
def retried(number: int) -> None:
    """What people write by hand: ask, and try again in a second if refused."""
    if backlog.try_acquire() is None:
        raise dramatiq.errors.Retry(delay=1_000)
    journal.note(journal.RAN, str(number))


@dramatiq.actor(limiter=SyncTokenBucket(**calling.ADAPTING), throttle_on=calling.NOT_NOW)
def told_and_adapts(number: int) -> None:
    calling.call(number, retries())


@dramatiq.actor(limiter=SyncTokenBucket(**calling.STEADY), throttle_on=calling.NOT_NOW)
def told(number: int) -> None:
    calling.call(number, retries())


@dramatiq.actor(limiter=SyncTokenBucket(**calling.STEADY), **RETRIES)
def untold(number: int) -> None:
    """What people write by hand: this job comes back when it was told to, and the others go on."""
    try:
        calling.call(number, retries())
    except calling.NOT_NOW as error:
        raise dramatiq.errors.Retry(delay=int(1_000 * calling.retry_after(error))) from None


def retries() -> int:
    """Those that this job has spent."""
    message = CurrentMessage.get_current_message()
    return message.options.get("retries", 0) if message else 0


@dramatiq.actor(limiter=SyncTokenBucket(**using.MODEL))
def settles(_: int) -> None:
    used = using.use()
    current_permit().settle(used)
    using.note(used)


@dramatiq.actor
def unlimited(sent: float) -> None:
    journal.note(journal.UNLIMITED, str(sent))


COUNTED = {"steindamm", "bucket_rate_limiter", "retried"}


def send(kind: str, argument: object) -> None:
    globals()[kind].send(argument)


def send_unlimited(sent: float) -> None:
    unlimited.send(sent)


def worker_command(_number: int, _kind: str) -> list[str]:
    return [sys.executable, "-P", "-m", "dramatiq", __name__, "--processes", "1", "--threads", "4"]
