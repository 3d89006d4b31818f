"""Celery: the jobs, each way of limiting them a task of its own."""

from __future__ import annotations

import sys

from celery import Celery, Task
from celery.signals import task_received
from celery_heimdall import HeimdallTask, RateLimit

from benchmarks.jobs import bare, calling, journal, using
from benchmarks.jobs.limits_of_jobs import BACKLOG, NEVER_REFUSING, RATE
from steindamm import SyncTokenBucket, current_permit
from steindamm.integrations.celery import RateLimitedTask

app = Celery("bench", broker=journal.URL)
app.conf.update(
    task_ignore_result=True, broker_connection_retry_on_startup=True, worker_max_tasks_per_child=None,
    result_backend=None,
)  # fmt: skip
backlog = SyncTokenBucket.create(**BACKLOG)
never_refusing = SyncTokenBucket.create(**NEVER_REFUSING)
WORKERS = 2


@task_received.connect
def received(request, **_):
    if request.name in COUNTED:
        journal.delivered()


def nothing(edge: bool) -> None:  # noqa: FBT001
    """A job that does nothing; the first and the last ones say when."""
    if edge:
        journal.note(journal.EDGE)


@app.task
def plain(edge: bool = False) -> None:  # noqa: FBT001, FBT002
    nothing(edge)


@app.task
def bare_call(edge: bool = False) -> None:  # noqa: FBT001, FBT002
    bare.call(bare.KEYS)
    nothing(edge)


@app.task(base=RateLimitedTask, limiter=never_refusing)
def open_limit(edge: bool = False) -> None:  # noqa: FBT001, FBT002
    nothing(edge)


@app.task(base=RateLimitedTask, limiter=backlog)
def steindamm(number: int) -> None:
    journal.note(journal.RAN, str(number))


@app.task(base=HeimdallTask, heimdall={"rate_limit": RateLimit((RATE, 1)), "key": "api"})
def heimdall(number: int) -> None:
    journal.note(journal.RAN, str(number))


@app.task(rate_limit=f"{RATE // WORKERS}/s")
def rate_limit(number: int) -> None:
    """Celery's own: a share for each worker."""
    journal.note(journal.RAN, str(number))


@app.task(bind=True, max_retries=None)
def retried(self: Task, number: int) -> None:
    """What people write by hand: ask, and try again later if refused."""
    answer = backlog.try_acquire()
    if answer is None:
        raise self.retry(countdown=1)
    journal.note(journal.RAN, str(number))


@app.task(bind=True, base=RateLimitedTask, limiter=SyncTokenBucket(**calling.ADAPTING), throttle_on=calling.NOT_NOW)
def told_and_adapts(self: Task, number: int) -> None:
    calling.call(number, self.request.retries)


@app.task(bind=True, base=RateLimitedTask, limiter=SyncTokenBucket(**calling.STEADY), throttle_on=calling.NOT_NOW)
def told(self: Task, number: int) -> None:
    calling.call(number, self.request.retries)


@app.task(bind=True, base=RateLimitedTask, limiter=SyncTokenBucket(**calling.STEADY), max_retries=None)
def untold(self: Task, number: int) -> None:
    """What people write by hand: this job comes back when it was told to, and the others go on."""
    try:
        calling.call(number, self.request.retries)
    except calling.NOT_NOW as error:
        raise self.retry(countdown=calling.retry_after(error)) from None


@app.task(base=RateLimitedTask, limiter=SyncTokenBucket(**using.MODEL))
def settles(_: int) -> None:
    used = using.use()
    current_permit().settle(used)
    using.note(used)


@app.task
def unlimited(sent: float) -> None:
    journal.note(journal.UNLIMITED, str(sent))


COUNTED = {task.name for task in (steindamm, heimdall, rate_limit, retried)}
NAMED = plain, bare_call, open_limit, steindamm, heimdall, rate_limit, retried, told_and_adapts, told, untold, settles
TASKS = {task.name.rsplit(".", 1)[-1]: task for task in NAMED}


def send(kind: str, argument: object) -> None:
    TASKS[kind].delay(argument)


def send_unlimited(sent: float) -> None:
    unlimited.delay(sent)


def worker_command(number: int, _kind: str) -> list[str]:
    celery = [sys.executable, "-P", "-m", "celery", "--app", __name__, "worker", "--concurrency", "2"]
    return [*celery, "--hostname", f"worker{number}@%h", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
