"""Sends a job back to its queue as it is: the same id, age, arguments, options, callbacks and retries."""

from __future__ import annotations

import logging
import math
import sys
import time
from threading import local
from typing import Any

from dramatiq import Broker, Message, MessageProxy
from dramatiq.common import q_name
from dramatiq.errors import ConnectionClosed, ConnectionFailed
from dramatiq.middleware import SkipMessage

from steindamm.errors import SteindammError
from steindamm.integrations.bookings import HEADER
from steindamm.integrations.decisions import Defer, Fail
from steindamm.integrations.dramatiq.fetched import REDIS_ID
from steindamm.integrations.job_limits import Claim
from steindamm.integrations.waiting import note_wait

logger = logging.getLogger("steindamm.dramatiq")

LONGEST_HOP = 900.0
"""Seconds that a message is delayed in one go: half of what RabbitMQ waits for a worker to acknowledge it."""
CLOCK = 1
"""Milliseconds by which Dramatiq's clock, which counts whole ones, may be behind."""
AGAIN = 1.0
"""Seconds until the next try where the broker did not take the message."""
CLIENTS = {"redis": "RedisError", "pika.exceptions": "AMQPError"}
"""What the brokers' clients raise, by their modules."""


class _Here(local):
    """The message that this thread sends."""

    sends: Message[Any] | None = None


_here = _Here()


class Deferred(SkipMessage):
    """The job has been sent back to its queue; this delivery of it is done with."""


class DeferralRefusedError(SteindammError):
    """A job must wait for its limiter, and can't go back to its queue; it becomes a dead letter.

    What refused it is its ``__cause__``: the error of a middleware that does not let it be enqueued, or of an encoder.

    Example:
        >>> from steindamm.integrations.dramatiq import DeferralRefusedError
        >>> print(DeferralRefusedError("AlreadyQueued: the job is queued already"))
        the job can't go back to its queue: AlreadyQueued: the job is queued already

    Parameters:
        reason: The error, as text.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"the job can't go back to its queue: {self.reason}"


def send_back(broker: Broker, message: MessageProxy, claim: Claim | None, defer: Defer) -> Deferred | Fail:
    """Put a copy of a job that carries its booking into the delay queue; what to raise instead of running it.

    The copy is there before the original is acknowledged. A broker that does not answer is asked until it
    does: the worker can do nothing without it, and to go on would run the job, or lose it. A job whose copy is
    refused fails: it would be refused each time, and a retry, which is a copy as well, would be lost.
    """
    copy = message.copy(queue_name=q_name(message.queue_name), options={HEADER: defer.booking.written()})
    delay = math.ceil(min(defer.wait, LONGEST_HOP) * 1000) + CLOCK
    try:
        _enqueue(broker, copy, delay)
    except Exception as error:
        logger.exception("job %s of %s must wait and can't go back: it fails", message.message_id, message.actor_name)
        refusal = DeferralRefusedError(f"{type(error).__name__}: {error}")
        refusal.__cause__ = error
        return Fail(refusal)
    message.options["store_results"] = False
    note_wait(claim, defer.booking, defer)
    logger.debug(
        "job %s of %s waits %.3f s for limiter %r",
        message.message_id, message.actor_name, defer.wait, defer.booking.limiter,
    )  # fmt: skip
    return Deferred("the job waits for its limiter")


def _enqueue(broker: Broker, copy: Message[Any], delay: int) -> None:
    while not _is_taken(broker, copy, delay):
        time.sleep(AGAIN)
        if _is_there(broker):
            break


def _is_taken(broker: Broker, copy: Message[Any], delay: int) -> bool:
    _here.sends = None
    try:
        broker.enqueue(copy, delay=delay)
    except Exception as error:
        if not _is_away(error):
            raise
        logger.warning("job %s can't go back to its queue now: %s", copy.message_id, type(error).__name__)
        return _is_there(broker)
    return True


def _is_away(error: Exception) -> bool:
    """Whether the broker can't be reached, or takes nothing just now. A client that is not imported raised nothing."""
    clients = [getattr(sys.modules.get(module), name, ()) for module, name in CLIENTS.items()]
    return isinstance(error, (ConnectionClosed, ConnectionFailed, OSError, *clients))


def note_sending(message: Message[Any]) -> None:
    """Remember what is about to be sent: it may be there though the connection broke before the broker said so."""
    _here.sends = message


def _is_there(broker: Any) -> bool:
    """Whether the broker has what this thread sent last; only Redis can tell, and it by an id for each message."""
    sent = _here.sends
    if sent is None or REDIS_ID not in sent.options:
        return False
    try:
        return bool(broker.client.hexists(f"{broker.namespace}:{sent.queue_name}.msgs", sent.options[REDIS_ID]))
    except Exception:  # noqa: BLE001
        return False


def without_deferrals(_: logging.LogRecord) -> bool:
    """A filter for the worker's log, which warns of every message that is skipped."""
    return not isinstance(sys.exc_info()[1], Deferred)


def hush_worker() -> None:
    """Keep deferrals out of the worker's log."""
    logging.getLogger("dramatiq.worker.WorkerThread").addFilter(without_deferrals)
