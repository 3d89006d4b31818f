"""A worker's process that stands still, once, in the moment in which its limiter has let a job start."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import redis

from steindamm import SyncSemaphore

KEY = "stands still"
LEASE = 1.0
PATIENCE = 30.0


def standing_still(limiter: Any, url: str) -> Any:
    """A sync limiter that stops its process when it has let a job start, if no other has before."""
    ask = limiter.ask

    def asked(**question: Any) -> Any:
        return _stopped(url, ask(**question))

    limiter.ask = asked
    return limiter


def standing_still_async(limiter: Any, url: str) -> Any:
    """The same of an async one."""
    ask = limiter.ask

    async def asked(**question: Any) -> Any:
        return _stopped(url, await ask(**question))

    limiter.ask = asked
    return limiter


def _stopped(url: str, answer: Any) -> Any:
    with redis.Redis.from_url(url) as client:
        if answer.permit is not None and client.set(KEY, os.getpid(), nx=True, ex=600):
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.1)  # another thread may have taken the signal, and this one not stand still yet
    return answer


def check_missed_start(url: str, name: str, entered: Callable[[], int]) -> None:
    """A job that was let start just before its process stood still begins when it has a slot again, and once.

    Parameters:
        url: The limits' server.
        name: The semaphore of the job that was sent; it has one slot.
        entered: How often the job has begun.
    """
    with redis.Redis.from_url(url) as client:
        process = int(_until(lambda: client.get(KEY)))
    with SyncSemaphore(name, capacity=1, expiry=LEASE, connection=url):
        os.kill(process, signal.SIGCONT)
        time.sleep(0.5)
        assert entered() == 0
    _until(lambda: entered() > 0)
    time.sleep(0.2)
    assert entered() == 1


def _until(reached: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := reached()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found
