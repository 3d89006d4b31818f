"""What a worker has in hand of what its Redis broker has sent it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from threading import Lock, Thread, current_thread
from weakref import WeakSet

from dramatiq import MessageProxy

REDIS_ID = "redis_message_id"
"""The option of a message by which the Redis broker knows this delivery of it."""


class Fetched:
    """The messages of one broker that this process has in hand, from their arrival until the broker hears the end."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = Lock()
        self._held_by: dict[str, Thread | None] = {}
        self._consumers: defaultdict[str, WeakSet[Thread]] = defaultdict(WeakSet)

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked with its broker in it, and others are the same worker to Redis."""
        return os.getpid() != self._process

    def begins(self, queue: str) -> None:
        """This thread consumes a queue from now on: for the first time, or anew, and then with an empty memory."""
        mine = current_thread()
        with self._lock:
            self._consumers[queue].add(mine)
            for redis_id in [redis_id for redis_id, thread in self._held_by.items() if thread is mine]:
                del self._held_by[redis_id]

    def arrived(self, message: MessageProxy) -> None:
        """A consumer was sent a message."""
        with self._lock:
            self._held_by[message.options[REDIS_ID]] = None

    def ended(self, messages: Iterable[MessageProxy]) -> None:
        """The broker has heard what became of them."""
        with self._lock:
            for message in messages:
                self._held_by.pop(message.options[REDIS_ID], None)

    def delayed(self, message: MessageProxy) -> None:
        """A consumer holds it in its memory from now on; called in that consumer's thread."""
        with self._lock:
            if message.options.get(REDIS_ID) in self._held_by:
                self._held_by[message.options[REDIS_ID]] = current_thread()

    def take_out(self, message: MessageProxy) -> bool:
        """Take a message out of a consumer's memory; False where that was dropped, and the message with it."""
        redis_id = message.options.get(REDIS_ID)
        with self._lock:
            if redis_id in self._held_by:
                self._held_by[redis_id] = None
                return True
            return not self._consumers

    def not_arrived(self, queue: str, sent: Iterable[str]) -> list[str]:
        """The ids of what was sent to this process and nobody here knows, if this thread alone consumes the queue."""
        if self.is_forked:
            return []
        with self._lock:
            if any(thread.is_alive() for thread in self._consumers[queue] if thread is not current_thread()):
                return []
            return [redis_id for redis_id in sent if redis_id not in self._held_by]
