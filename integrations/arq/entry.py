"""A job's entry in arq's Redis, and the key beside it that holds its booking while it waits."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from arq.constants import job_key_prefix, retry_key_prefix
from arq.utils import to_unix_ms
from redis.exceptions import NoScriptError, RedisError

from steindamm.backends.redis.scripts import Script, script
from steindamm.integrations.bookings import NO_BOOKING, Booking

logger = logging.getLogger("steindamm.arq")

BOOKING_KEY_PREFIX = "arq:steindamm:"
"""Before a job's id, which may be anything: no key of arq begins so."""
FACTS = frozenset({"redis", "job_id", "job_try", "enqueue_time", "score"})
"""What a worker puts into the context of each job."""
KEPT = 88_400_000
"""Milliseconds that arq remembers a job's tries."""
SLACK = 60_000
"""Milliseconds that a job outlives its turn at least: workers may be busy then."""
BROKER_ERRORS = (RedisError, OSError)


def put_back_script() -> Script:
    """Makes a job fit to be started again later."""
    return script("arq_put_back")


class Entry:
    """The entry of a job that a worker has just taken.

    Parameters:
        ctx: The job's context.

    Attributes:
        job_id: The job's id.
        may_be_booked: Whether it may have a booking. A job that stands in the queue where it was put first has none: it
            has been deferred by nobody.
    """

    def __init__(self, ctx: Mapping[str, Any]) -> None:
        self._redis = ctx["redis"]
        self._tries_before = ctx["job_try"] - 1
        self._enqueued = to_unix_ms(ctx["enqueue_time"])
        self.may_be_booked: bool = ctx["score"] != self._enqueued
        self.job_id: str = ctx["job_id"]

    @property
    def _retry_key(self) -> str:
        return retry_key_prefix + self.job_id

    @property
    def _booking_key(self) -> str:
        return BOOKING_KEY_PREFIX + self.job_id

    async def booking(self) -> Booking:
        """What the job has brought along."""
        try:
            written = await self._redis.get(self._booking_key)
        except BROKER_ERRORS as error:
            logger.warning("job %r: its booking can't be read: %s", self.job_id, type(error).__name__)
            return NO_BOOKING
        self.may_be_booked = written is not None
        return self._read(written)

    def _read(self, written: bytes | None) -> Booking:
        """A booking of an earlier job with the same id is none."""
        try:
            booking = json.loads(written or "null")
        except (ValueError, RecursionError):
            return NO_BOOKING
        if not isinstance(booking, dict) or booking.get("enqueued") != self._enqueued:
            return NO_BOOKING
        return Booking.read(booking)

    async def put_back(self, wait: float, booking: Booking) -> bool:
        """Make the entry fit to be started again after `wait` seconds, as if it had not been taken now.

        The time that the job waits for its turn does not count towards its expiry.

        Returns:
            Whether it is there to be put back: one that has expired while it ran is not.

        Raises:
            RedisError, OSError: arq's Redis did not answer.
        """
        keys = (job_key_prefix + self.job_id, self._retry_key, self._booking_key)
        written = json.dumps({**booking.written(), "enqueued": self._enqueued}, default=str)
        args = (self._tries_before, written, round(wait * 1000), SLACK, KEPT)
        script = put_back_script()
        try:
            is_there = await self._redis.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            is_there = await self._redis.eval(script.text, len(keys), *keys, *args)
        self.may_be_booked = True
        return bool(is_there)

    async def spare_the_try(self) -> None:
        """Take back that the job was tried: it has only waited."""
        try:
            await self._redis.set(self._retry_key, self._tries_before, px=KEPT)
        except BROKER_ERRORS as error:
            logger.warning("job %r: a try is lost to its waiting: %s", self.job_id, type(error).__name__)

    async def forget_booking(self) -> None:
        """The job starts."""
        try:
            await self._redis.delete(self._booking_key)
        except BROKER_ERRORS as error:
            logger.warning("job %r: its booking stays until it expires: %s", self.job_id, type(error).__name__)
