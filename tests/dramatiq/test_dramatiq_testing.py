"""The stub broker with the limiters of `steindamm.testing`, as docs/testing.md shows it."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker

from steindamm import SyncSemaphore, SyncTokenBucket
from steindamm.testing import instant_limiters, strict_limiters

NOWHERE = "redis://127.0.0.1:1"
StartWorker = Callable[..., Worker]


def test_instant_limiters_let_all_jobs_run(broker: StubBroker, start_worker: StartWorker, name: str) -> None:
    ran = []

    @dramatiq.actor(limiter=SyncTokenBucket.from_rate("1/h", name=name, connection=NOWHERE))
    def send_mail(to: int) -> None:
        ran.append(to)

    @dramatiq.actor(limiter=SyncSemaphore(f"{name} writers", capacity=1, connection=NOWHERE))
    def write(to: int) -> None:
        ran.append(to)

    with instant_limiters() as limits:
        worker = start_worker()
        for number in range(10):
            send_mail.send(number)
            write.send(number)
        broker.join("default")
        worker.join()
    assert sorted(ran) == sorted([*range(10)] * 2)
    assert limits.taken == {name: 10, f"{name} writers": 10}


def test_strict_limiters_show_who_must_wait(broker: StubBroker, start_worker: StartWorker, name: str) -> None:
    ran = []

    @dramatiq.actor(limiter=SyncTokenBucket.from_rate("1/h", name=name, connection=NOWHERE))
    def send_mail(to: int) -> None:
        ran.append(to)

    with strict_limiters() as limits:
        worker = start_worker()
        for number in range(2):
            send_mail.send(number)
        broker.queues["default"].join()
        worker.pause()
    assert len(ran) == 1
    assert limits.taken == {name: 1}
