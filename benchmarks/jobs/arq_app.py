"""arq: the jobs, each way of limiting them a function of its own."""

from __future__ import annotations

import asyncio
import sys

from arq import Retry, create_pool, func
from arq.connections import RedisSettings

from benchmarks.jobs import bare, calling, journal, using
from benchmarks.jobs.limits_of_jobs import BACKLOG, NEVER_REFUSING
from steindamm import AsyncTokenBucket, current_permit
from steindamm.integrations.arq import rate_limited, rate_limited_worker

WITHOUT_END = 1_000_000
backlog = AsyncTokenBucket.create(**BACKLOG)
never_refusing = AsyncTokenBucket.create(**NEVER_REFUSING)


async def plain(ctx, edge=False):  # noqa: FBT002
    if edge:
        journal.note(journal.EDGE)


async def bare_call(ctx, edge=False):  # noqa: FBT002
    await bare.acall(bare.KEYS)
    if edge:
        journal.note(journal.EDGE)


@rate_limited(limiter=never_refusing)
async def open_limit(ctx, edge=False):  # noqa: FBT002
    if edge:
        journal.note(journal.EDGE)


@rate_limited(limiter=backlog)
async def steindamm(ctx, number):
    journal.note(journal.RAN, str(number))


@rate_limited(limiter=backlog, max_sleep=5)
async def patient(ctx, number):
    """As docs/arq.md has it for such a backlog."""
    journal.note(journal.RAN, str(number))


async def retried(ctx, number):
    """What people write by hand: ask, and try again in a second if refused."""
    if await backlog.try_acquire() is None:
        raise Retry(defer=1)
    journal.note(journal.RAN, str(number))


@rate_limited(limiter=AsyncTokenBucket(**calling.ADAPTING), throttle_on=calling.NOT_NOW)
async def told_and_adapts(ctx, number):
    await asyncio.to_thread(calling.call, number, ctx["job_try"] - 1)


@rate_limited(limiter=AsyncTokenBucket(**calling.STEADY), throttle_on=calling.NOT_NOW)
async def told(ctx, number):
    await asyncio.to_thread(calling.call, number, ctx["job_try"] - 1)


@rate_limited(limiter=AsyncTokenBucket(**calling.STEADY))
async def untold(ctx, number):
    """What people write by hand: this job comes back when it was told to, and the others go on."""
    try:
        await asyncio.to_thread(calling.call, number, ctx["job_try"] - 1)
    except calling.NOT_NOW as error:
        raise Retry(defer=calling.retry_after(error)) from None


@rate_limited(limiter=AsyncTokenBucket(**using.MODEL))
async def settles(ctx, _):
    used = await asyncio.to_thread(using.use)
    await current_permit().settle(used)
    using.note(used)


async def unlimited(ctx, sent):
    journal.note(journal.UNLIMITED, str(sent))


async def count(ctx):
    if not ctx["job_id"].startswith("unlimited"):
        journal.delivered()


SETTINGS = {
    "functions": [
        plain, bare_call, open_limit, steindamm, patient, func(retried, max_tries=WITHOUT_END), unlimited,
        told_and_adapts, told, func(untold, max_tries=WITHOUT_END), settles,
    ],
    "redis_settings": RedisSettings.from_dsn(journal.URL),
    "on_job_start": count,
    "poll_delay": 0.01,
    "keep_result": 0,
}  # fmt: skip
WorkerSettings = rate_limited_worker()({**SETTINGS, "max_jobs": 100})
RoomyWorkerSettings = rate_limited_worker()({**SETTINGS, "max_jobs": 1_000})


class Sender:
    """Sends from a loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = self._loop.run_until_complete(create_pool(SETTINGS["redis_settings"]))

    def send(self, function: str, argument: object, job: str) -> None:
        self._loop.run_until_complete(self._pool.enqueue_job(function, argument, _job_id=job))


_senders: list[Sender] = []
_numbers = iter(range(10**9))


def _send(function: str, argument: object, prefix: str) -> None:
    if not _senders:
        _senders.append(Sender())
    _senders[0].send(function, argument, f"{prefix}-{next(_numbers)}")


def send(kind: str, argument: object) -> None:
    _send(kind, argument, "limited")


def send_unlimited(sent: float) -> None:
    _send("unlimited", sent, "unlimited")


def worker_command(_number: int, kind: str) -> list[str]:
    settings = "RoomyWorkerSettings" if kind == "patient" else "WorkerSettings"
    return [sys.executable, "-P", "-m", "arq", f"{__name__}.{settings}"]
