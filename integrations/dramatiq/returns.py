"""Brings jobs that wait back at their turn.

Dramatiq holds delayed messages in a worker's memory, looks now and then whether one is due, and puts those that
are at the end of their queue. Here a job goes, at its turn, from that memory straight to the worker's threads.
If none of these gets free for it within a short time, Dramatiq takes it the long way, and any worker may run it.
"""

from __future__ import annotations

import logging
from heapq import heappop, heappush
from itertools import count
from queue import Empty, PriorityQueue
from threading import Lock, Thread
from time import time
from typing import Any

from steindamm.bell import Bell
from steindamm.integrations.bookings import HEADER
from steindamm.integrations.dramatiq.fetched import Fetched
from steindamm.integrations.dramatiq.threads import Threads

logger = logging.getLogger("steindamm.dramatiq")

GRACE = 200
"""Milliseconds for which a job whose turn has come waits for a thread of this worker."""
ARRIVAL = 5
"""Milliseconds after which a job is in the worker's memory that was about to be put there."""
IDLE = 3_600.0
"""Seconds; the longest time between two looks."""

Consumer = Any
"""Dramatiq's thread that holds the delayed messages of one queue."""


class Returns:
    """The jobs that wait in one worker's memory.

    Parameters:
        threads: The worker's threads.
        fetched: What its process has in hand.
    """

    def __init__(self, threads: Threads, fetched: Fetched) -> None:
        self._threads = threads
        self._fetched = fetched
        self._changing = Lock()
        self._news = Bell()
        self._looks: list[tuple[float, int, Consumer]] = []
        self._unserved: set[Consumer] = set()
        self._numbers = count()
        self._on_their_way: set[int] = set()
        self._thread: Thread | None = None
        self._closed = False

    def expect(self, consumer: Consumer, message: Any) -> None:
        """Bring a job back that this worker is about to hold. To Dramatiq it is due only after the time of grace."""
        eta, now = message.options["eta"], int(_now())
        message.options["eta"] = max(eta, now) + GRACE
        self._look_at(max(eta, now + ARRIVAL), consumer)

    def arrived(self, message: Any) -> None:
        """A thread has taken a message up."""
        self._on_their_way.discard(id(message))

    def thread_is_free(self) -> None:
        """Look again for jobs whose turn came while no thread was free."""
        if self._unserved:
            with self._changing:
                unserved, self._unserved = self._unserved, set()
            for consumer in unserved:
                self._look_at(0.0, consumer)

    def close(self) -> None:
        """Leave all jobs where they are."""
        self._closed = True
        self._news.ring()

    def _look_at(self, moment: float, consumer: Consumer) -> None:
        look = (moment, next(self._numbers), consumer)
        with self._changing:
            heappush(self._looks, look)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="steindamm-returns", daemon=True)
                self._thread.start()
            is_next = self._looks[0] is look
        if is_next:
            self._news.ring()

    def _run(self) -> None:
        while consumers := self._next_due():
            for consumer in consumers:
                try:
                    self._bring_back(consumer)
                except Exception:
                    logger.exception("jobs of queue %r come back late", consumer.queue_name)

    def _next_due(self) -> set[Consumer]:
        """Those to look at, when it is time; none when the worker ends."""
        while not self._closed:
            found, until_next = self._due()
            if found:
                return found
            self._news.wait(until_next)
        return set()

    def _due(self) -> tuple[set[Consumer], float | None]:
        """Those to look at now, and in how many seconds to look again; None when somebody says so."""
        found: set[Consumer] = set()
        with self._changing:
            now = _now()
            while self._looks and self._looks[0][0] <= now:
                found.add(heappop(self._looks)[2])
            return found, min((self._looks[0][0] - now) / 1000, IDLE) if self._looks else None

    def _bring_back(self, consumer: Consumer) -> None:
        """Give what is due to the threads that are free."""
        memory = consumer.delay_queue
        while self._has_room():
            message = _next_of_ours(memory)
            if message is None:
                return
            if self._fetched.take_out(message):
                self._hand_over(consumer, message)
            memory.task_done()
        with self._changing:
            self._unserved.add(consumer)
        if self._has_room():
            self.thread_is_free()

    def _has_room(self) -> bool:
        return not self._closed and self._threads.free > len(self._on_their_way)

    def _hand_over(self, consumer: Consumer, message: Any) -> None:
        self._on_their_way.add(id(message))
        del message.options["eta"]
        consumer.handle_message(message)
        if message.failed:
            self.arrived(message)


def _next_of_ours(delayed: PriorityQueue[Any]) -> Any | None:
    """Take the first job out of a worker's memory that is due; the others stay as they are."""
    latest, passed = _now() + GRACE, []
    try:
        while True:
            entry = delayed.get_nowait()
            due, message = entry if isinstance(entry, tuple) else (entry.priority, entry.message)
            if due <= latest and HEADER in message.options:
                return message
            passed.append(entry)
            if due > latest:
                return None
    except Empty:
        return None
    finally:
        for entry in passed:
            delayed.put(entry)
            delayed.task_done()


def _now() -> float:
    """Unix milliseconds."""
    return time() * 1000
