"""What tests look at in Dramatiq's queues."""

from __future__ import annotations

from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message


def waiting(broker: StubBroker, queue: str = "default") -> list[Message]:
    """The messages in a queue's delay queue."""
    return [Message.decode(data) for data in broker.queues[f"{queue}.DQ"].queue]
