"""Has RabbitMQ say that it has what a worker sends it.

A job that waits goes back to its queue as a copy, and its original is acknowledged, on another connection. By default
Dramatiq's broker does not wait for an answer: a copy that was written into a connection as it broke would be lost.
"""

from __future__ import annotations

import logging

from dramatiq import Broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker

logger = logging.getLogger("steindamm.dramatiq")


def confirm_deliveries(broker: Broker) -> None:
    """Let a RabbitMQ broker wait for confirmations from now on, in this process; all its threads are still to come."""
    if isinstance(broker, RabbitmqBroker) and not broker.confirm_delivery:
        broker.confirm_delivery = True
        logger.info("RabbitMQ is asked to confirm what this worker sends, so that no job that waits is lost")
