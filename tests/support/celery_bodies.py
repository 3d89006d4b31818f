"""What the jobs of the test workers do."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from steindamm import SyncTokenBucket
from support.celery_limits import journal, limits, record


def do(task: Any, label: str, how: str, seconds: float) -> str:
    """Do what a job is told to do."""
    record("start", label, task.request.retries, os.getpid())
    if how == "raise":
        raise ValueError(label)
    if how == "feign a time limit":
        raise TimeLimitExceeded(1)
    if how == "retry" and task.request.retries == 0:
        raise task.retry(exc=ValueError("for its own reason"), countdown=0)
    if how == "be killed":
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "cling":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        linger(label, how, seconds)
    except SoftTimeLimitExceeded:
        record("soft limit", label)
        raise
    record("end", label)
    return label


def linger(label: str, how: str, seconds: float) -> None:
    """Take some time; one that clings shows that it is still there."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.005 if how == "cling" else 0.05))
        if how == "cling":
            record("alive", label)


class BusyError(Exception):
    """A server is busy, for so many seconds."""


def call_once_refused(task: Any, label: str, error: Exception | None) -> str:
    """Call a server, which refuses the first call of each job."""
    record("start", label, task.request.retries)
    if error is not None and journal.incr(f"calls {label}") == 1:
        journal.expire(f"calls {label}", 600)
        record("refused", label)
        raise error
    record("end", label)
    return label


def pass_inside(task: Any, label: str, name: str, seconds: float) -> str:
    """Do what is limited by a limiter of one's own, which lets one pass every so many seconds."""
    request = task.request
    facts = (
        request.expires,
        request.reply_to,
        request.root_id,
        request.parent_id,
        request.timelimit,
        request.get("tenant"),
        request.shadow,
    )
    record("entered", label, request.retries, *facts, request.delivery_info["priority"])
    with SyncTokenBucket(name, capacity=1, refill_frequency=seconds, max_sleep=0.01, connection=limits):
        record("passed", label, task.request.retries)
    return label
