"""Brings jobs that wait back at their turn.

Dramatiq holds delayed messages in a worker's memory. It looks about once a second whether one is due, and puts
those that are at the end of their queue. Here a job goes, at its turn, from that memory straight to the
worker's threads, as long as one of these is free. If none is, Dramatiq takes it the long way, and any worker
may run it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from queue import Empty
from threading import Condition, Thread
from time import time
from typing import Any

from steindamm.integrations.bookings import HEADER
from steindamm.integrations.dramatiq.threads import Threads

logger = logging.getLogger("steindamm.dramatiq")

LOOK = 100
"""Milliseconds after which a worker looks again for messages that were delayed."""

Consumer = Any
"""Dramatiq's thread that holds the delayed messages of one queue."""


class Returns:
    """The jobs that wait in one worker's memory.

    Parameters:
        threads: The worker's threads.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._changed = Condition()
        self._due: list[tuple[float, int, Consumer]] = []
        self._numbers = count()
        self._on_their_way: set[int] = set()
        self._thread: Thread | None = None
        self._closed = False

    def expect(self, consumer: Consumer, eta: float) -> None:
        """Look for a job at a moment, in Unix milliseconds."""
        due = (eta, next(self._numbers), consumer)
        with self._changed:
            heappush(self._due, due)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="steindamm-returns", daemon=True)
                self._thread.start()
            elif self._due[0] is due:
                self._changed.notify()

    def arrived(self, message: Any) -> None:
        """A thread has taken a message up."""
        self._on_their_way.discard(id(message))

    def close(self) -> None:
        """Leave all jobs where they are."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        for consumer in self._due_ones():
            try:
                self._bring_back(consumer)
            except Exception:
                logger.exception("jobs of queue %r come back late", consumer.queue_name)

    def _due_ones(self) -> Iterator[Consumer]:
        """Those that hold a job whose turn has come, one by one, until the worker ends."""
        while True:
            with self._changed:
                while not self._closed and (wait := self._next_wait()) > 0:
                    self._changed.wait(wait if self._due else None)
                if self._closed:
                    return
                _, _, consumer = heappop(self._due)
            yield consumer

    def _next_wait(self) -> float:
        """Seconds."""
        return self._due[0][0] / 1000 - time() if self._due else float("inf")

    def _bring_back(self, consumer: Consumer) -> None:
        """Give the threads what is due, and leave the rest as it is."""
        now, delayed, left = time() * 1000, consumer.delay_queue, []
        while self._threads.free > len(self._on_their_way):
            try:
                entry = delayed.get_nowait()
            except Empty:
                break
            eta, message = entry if isinstance(entry, tuple) else (entry.priority, entry.message)
            if eta <= now and HEADER in message.options:
                self._hand_over(consumer, message)
                delayed.task_done()
                continue
            left.append(entry)
            if eta > now:
                break
        for entry in left:
            delayed.put(entry)
            delayed.task_done()

    def _hand_over(self, consumer: Consumer, message: Any) -> None:
        self._on_their_way.add(id(message))
        del message.options["eta"]
        consumer.handle_message(message)
        if message.failed:
            self.arrived(message)
