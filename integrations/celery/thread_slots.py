"""Gives a pool of threads what a pool of processes has: slots, for which jobs wait in the worker's line.

Else they would wait in the executor's queue, behind the gate: with tokens taken long before they start, and with
slots of semaphores that nobody uses. So they would, too, after a connection was lost, when Celery takes all slots for
free though jobs run on: those that passed the gate one after the other would start together when the threads are free.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.thread import TaskPool

from steindamm.integrations.celery.waker import Waker


class ThreadSlots:
    """Lets all jobs of a worker wait for a free thread, if it runs them in threads.

    Parameters:
        consumer: The worker's consumer.
        waker: Brings the news of a free thread into the worker's loop.
    """

    def __init__(self, consumer: Any, waker: Waker) -> None:
        self._controller = consumer.controller
        self._waker = waker
        self._taken = 0
        self._counts = consumer.hub is not None and isinstance(consumer.pool, TaskPool)
        if self._counts:
            self._apply = consumer.pool.on_apply
            consumer.pool.on_apply = self._apply_in_slot
            consumer.on_task_request = self._controller._process_task_sem

    def count(self) -> None:
        """Count anew which are free; called at each start of the consumer."""
        if self._counts:
            slots = self._controller.semaphore
            slots.value = max(0, slots.initial_value - self._taken)

    def _apply_in_slot(self, *args: Any, **options: Any) -> Any:
        result = self._apply(*args, **options)
        self._taken += 1
        result.f.add_done_callback(lambda _: self._waker.call(self._free))
        return result

    def _free(self) -> None:
        self._taken -= 1
        self._controller._quick_release()
