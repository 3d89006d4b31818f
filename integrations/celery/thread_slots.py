"""Gives a pool of threads what a pool of processes has: slots, for which jobs wait in the worker's line.

Else they would wait in the executor's queue, behind the gate: with tokens taken long before they start, and with
slots of semaphores that nobody uses.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.thread import TaskPool

from steindamm.integrations.celery.waker import Waker


def give_slots_to_threads(consumer: Any, waker: Waker) -> None:
    """Let all jobs of a worker wait for a free thread, if it runs them in threads.

    Parameters:
        consumer: The worker's consumer.
        waker: Brings the news of a free thread into the worker's loop.
    """
    controller, pool = consumer.controller, consumer.pool
    if consumer.hub is None or not isinstance(pool, TaskPool):
        return
    apply = pool.on_apply

    def apply_in_slot(*args: Any, **options: Any) -> Any:
        result = apply(*args, **options)
        result.f.add_done_callback(lambda _: waker.call(controller._quick_release))
        return result

    pool.on_apply = apply_in_slot
    consumer.on_task_request = controller._process_task_sem
