"""Saves messages that a worker was sent by Redis and knows nothing of.

Dramatiq's Redis broker gives a message to a worker for as long as that lives. Where a connection breaks, messages
that are on their way never arrive, and a consumer drops the delayed ones that it holds, as if the broker delivered
them again: nobody runs them until that worker ends. Here they go back to their queue. RabbitMQ does deliver again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import redis
from dramatiq import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed

from steindamm.clock import monotonic
from steindamm.integrations.dramatiq.fetched import Fetched

logger = logging.getLogger("steindamm.dramatiq")

LOOK_EVERY = 30.0
"""Seconds between two looks for messages that did not arrive; a new connection begins with one."""


class CarefulConsumer(Consumer):
    """A consumer of a Redis broker that finds out what did not arrive.

    Parameters:
        consumer: Dramatiq's own.
        broker: Its broker.
        queue: The queue that it consumes.
        fetched: What is in hand.
    """

    def __init__(self, consumer: Consumer, broker: Any, queue: str, fetched: Fetched) -> None:
        self._consumer = consumer
        self._broker = broker
        self._queue = queue
        self._fetched = fetched
        self._look_at = 0.0
        fetched.begins(queue)

    def __next__(self) -> MessageProxy | None:
        """The next message. Where there is none, all that has arrived was given out, and nothing is on its way."""
        message = next(self._consumer)
        if message is not None:
            self._fetched.arrived(message)
        elif monotonic() >= self._look_at:
            self._look_at = monotonic() + LOOK_EVERY
            self._look()
        return message

    def ack(self, message: MessageProxy) -> None:
        """Tell the broker that it is done."""
        self._consumer.ack(message)
        self._fetched.ended([message])

    def nack(self, message: MessageProxy) -> None:
        """Tell the broker that it failed."""
        self._consumer.nack(message)
        self._fetched.ended([message])

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put them back into the queue."""
        messages = list(messages)
        self._consumer.requeue(messages)
        self._fetched.ended(messages)

    def close(self) -> None:
        """End."""
        self._consumer.close()

    def _look(self) -> None:
        broker = self._broker
        try:
            sent = broker.client.smembers(f"{broker.namespace}:__acks__.{broker.broker_id}.{self._queue}")
            missing = self._fetched.not_arrived(self._queue, [redis_id.decode() for redis_id in sent])
            if missing:
                broker.do_requeue(self._queue, *missing)
                logger.warning("%d messages of queue %r go back to it: they did not arrive", len(missing), self._queue)
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            logger.warning("what did not arrive of queue %r can't be found: %s", self._queue, type(error).__name__)


class CarefulConsume:
    """Makes careful consumers where a broker makes its own.

    Parameters:
        broker: The broker.
        fetched: What is in hand.
    """

    def __init__(self, broker: Broker, fetched: Fetched) -> None:
        self._broker = broker
        self._consume: Callable[..., Consumer] = broker.consume
        self._fetched = fetched

    def __call__(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> CarefulConsumer:
        """Consume a queue, as `RedisBroker.consume` does."""
        consumer = self._consume(queue_name, prefetch, timeout)
        return CarefulConsumer(consumer, self._broker, queue_name, self._fetched)


def consume_carefully(broker: Broker, fetched: Fetched) -> None:
    """Let a Redis broker make careful consumers from now on; others have no need to."""
    if not isinstance(broker, RedisBroker):
        return
    if fetched.is_forked:
        logger.warning(
            "this worker was forked from a process that had its Redis broker already, and Redis takes all such workers"
            " for one: messages that do not arrive where a connection breaks wait until all of them have ended; make"
            " the broker in each worker's own process"
        )
    if not isinstance(broker.consume, CarefulConsume):
        broker.consume = CarefulConsume(broker, fetched)  # type: ignore[method-assign]
