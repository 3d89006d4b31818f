"""Dramatiq's jobs that are limited by several limits at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from steindamm import SyncSemaphore, SyncTokenBucket

StartWorker = Callable[..., dramatiq.Worker]


@pytest.mark.parametrize("max_sleep", [0, 2])
def test_jobs_keep_to_all_of_their_limits_and_run_once_each(
    broker: StubBroker, start_worker: StartWorker, name: str, max_sleep: float
) -> None:
    tokens = SyncTokenBucket(f"{name} tokens", capacity=1, refill_frequency=0.04)
    at_once = SyncSemaphore(f"{name} slots", capacity=2)
    running, most, starts, changing = 0, 0, [], threading.Lock()

    def work(job: int) -> None:
        nonlocal running, most
        with changing:
            running += 1
            most = max(most, running)
            starts.append((time.monotonic(), job))
        time.sleep(0.03)
        with changing:
            running -= 1

    actor = dramatiq.actor(work, broker=broker, actor_name=name, limiter=[tokens, at_once], max_sleep=max_sleep)
    for job in range(15):
        actor.send(job)
    start_worker()
    broker.join("default", timeout=20_000)
    assert sorted(job for _, job in starts) == list(range(15))
    assert most <= 2
    assert starts[-1][0] - starts[0][0] > 14 * 0.04 - 0.05
    assert at_once.try_acquire()
    assert at_once.try_acquire()


def test_limits_and_costs_are_functions_of_the_arguments(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    account = SyncTokenBucket(f"{name} account", capacity=100, refill_frequency=3_600)
    ran = []

    def of_customer(customer: str, mails: int) -> list[object]:
        return [SyncTokenBucket(f"{name} {customer}", capacity=5, refill_frequency=3_600), (account, mails)]

    actor = dramatiq.actor(
        lambda *job: ran.append(job), broker=broker, actor_name=name, limiter=of_customer, max_deferral=0
    )
    for customer in "ab":
        for _ in range(6):
            actor.send(customer, 2)
    start_worker()
    broker.join("default", timeout=20_000)
    assert sorted(ran) == [("a", 2)] * 5 + [("b", 2)] * 5
    assert account(80).try_acquire()
    assert account.try_acquire() is None
