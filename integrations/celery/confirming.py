"""Producers that hear from RabbitMQ that it has a message.

A job goes back to its queue as a copy, and its original is acknowledged, on another connection. Celery's own
producers do not wait for an answer, unless they are told to: a copy that was written into a connection as it broke, or
that a full queue refused, would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.messaging import Producer
from kombu.pools import producers
from kombu.transport.pyamqp import Transport

CONFIRMED = {"confirm_publish": True}
"""What tells RabbitMQ's client to wait; other brokers' clients always do."""


@contextmanager
def confirmed_producer(app: Celery) -> Iterator[Producer]:
    """A producer of a pool that all threads of this process share; a message that is refused raises in this block."""
    connection = app.connection_for_write(transport_options=CONFIRMED)
    if not issubclass(connection.get_transport_cls(), Transport):
        with app.producer_or_acquire() as producer:
            yield producer
        return
    with producers[connection].acquire(block=True) as producer:
        try:
            yield producer
        except MessageNacked as error:
            raise OperationalError("RabbitMQ refuses the message: its queue is full") from error
