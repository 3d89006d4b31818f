"""What tests look at in Dramatiq's queues, and what its workers did."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message

from steindamm import SyncTokenBucket

PATIENCE = 10_000
"""Milliseconds."""


def waiting(broker: StubBroker, queue: str = "default") -> list[Message]:
    """The messages in a queue's delay queue."""
    return [Message.decode(data) for data in broker.queues[f"{queue}.DQ"].queue]


class Seen(dramatiq.Middleware):
    """Keeps what a worker did with each message."""

    def __init__(self) -> None:
        self.deliveries: list[str] = []
        self.sent_back: list[str] = []
        self.ended: list[tuple[str, dict[str, Any], BaseException | None]] = []

    def before_process_message(self, _: Any, message: Any) -> None:
        self.deliveries.append(message.message_id)

    def after_enqueue(self, _: Any, message: Any, delay: int | None) -> None:
        if delay is not None:
            self.sent_back.append(message.message_id)

    def after_process_message(self, _: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        self.ended.append((message.queue_name, dict(message.options), exception))


def tight(name: str, **settings: Any) -> SyncTokenBucket:
    """One start each 50 ms."""
    return SyncTokenBucket(name, capacity=1, refill_frequency=0.05, **settings)


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
