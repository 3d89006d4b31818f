"""Producers that hear from RabbitMQ that it has a message.

A job goes back to its queue as a copy, and its original is acknowledged, on another connection. Celery's own producers
do not wait for an answer, unless they are told to: a copy that was written into a connection as it broke would be lost.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from celery import Celery
from kombu.messaging import Producer
from kombu.pools import producers
from kombu.transport.pyamqp import Transport

CONFIRMED = {"confirm_publish": True}
"""What tells RabbitMQ's client to wait; other brokers' clients always do."""


def confirmed_producer(app: Celery) -> AbstractContextManager[Producer]:
    """A producer of a pool that all threads of this process share."""
    connection = app.connection_for_write(transport_options=CONFIRMED)
    if issubclass(connection.get_transport_cls(), Transport):
        return producers[connection].acquire(block=True)  # type: ignore[no-any-return]
    return app.producer_or_acquire()  # type: ignore[no-any-return]
