"""Interrupts that hit a job while it goes back to its queue: it goes back whole, once, and without a retry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Interrupt, Shutdown, TimeLimitExceeded, raise_thread_exception
from support.dramatiq_jobs import PATIENCE, Seen

from steindamm import SyncTokenBucket

StartWorker = Callable[..., dramatiq.Worker]
MOMENTS = ("closes its limiter", "is sent", "was sent")


class BusyError(Exception):
    """A server is busy."""


class Interrupter(dramatiq.Middleware):
    """Interrupts the thread of a job at one moment of its way back, once."""

    def __init__(self, moment: str, interrupts: list[type[Interrupt]]) -> None:
        self.moment = moment
        self.interrupts = interrupts
        self.thread = 0

    def reach(self, moment: str) -> None:
        while moment == self.moment and self.interrupts:
            raise_thread_exception(self.thread, self.interrupts.pop())
            threading.Event().wait(0.05)

    def read(self, _: BusyError) -> float:
        self.reach("closes its limiter")
        return 0.05

    def before_enqueue(self, _: Any, message: Any, delay: int | None) -> None:
        self.reach("is sent")

    def after_enqueue(self, _: Any, message: Any, delay: int | None) -> None:
        self.reach("was sent")


@pytest.mark.parametrize("interrupts", [[TimeLimitExceeded], [Shutdown, TimeLimitExceeded]])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_job_goes_back_once_and_without_a_retry_though_it_is_interrupted_meanwhile(
    broker: StubBroker,
    start_worker: StartWorker,
    seen: Seen,
    name: str,
    moment: str,
    interrupts: list[type[Interrupt]],
) -> None:
    interrupter = Interrupter(moment, [])
    broker.add_middleware(interrupter)
    runs = []

    def refused_once() -> None:
        runs.append(1)
        if len(runs) == 1:
            interrupter.thread, interrupter.interrupts = threading.get_ident(), list(interrupts)
            raise BusyError

    limiter = SyncTokenBucket(name, capacity=10)
    dramatiq.actor(refused_once, broker=broker, limiter=limiter, throttle_on={BusyError: interrupter.read}).send()
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert len(runs) == 2
    assert [options.get("retries", 0) for _, options, _ in seen.ended] == [0]
    assert not interrupter.interrupts
    assert not broker.dead_letters


def test_what_a_middleware_keeps_for_the_job_is_there_while_it_is_sent_back(
    broker: StubBroker, start_worker: StartWorker, name: str
) -> None:
    trace: ContextVar[str] = ContextVar("trace", default="")
    runs, traces = [], []

    class Trace(dramatiq.Middleware):
        def before_process_message(self, _: Any, message: Any) -> None:
            trace.set(message.message_id)

        def before_enqueue(self, _: Any, message: Any, delay: int | None) -> None:
            traces.append(trace.get())

    def refused_once() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise BusyError

    broker.add_middleware(Trace())
    throttle_on = {BusyError: lambda _: 0.01}
    limiter = SyncTokenBucket(name, capacity=10)
    sent = dramatiq.actor(refused_once, broker=broker, limiter=limiter, throttle_on=throttle_on).send()
    start_worker()
    broker.join("default", timeout=PATIENCE)
    assert traces[:2] == ["", sent.message_id]
