"""Lets a worker fetch as much as before after a lost connection, and still one message more for each job that it holds.

A worker whose connection was lost while jobs ran fetches less for a time. Celery gives it the rest back as jobs are
acknowledged, by setting what it may fetch to no more than the most that it fetches of itself: all that it was given
for the jobs that it holds would be lost. It would fetch nothing while they wait, and one message at a time for ever
after, since each of them takes its own back when it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def restore_beside(consumer: Any, held: Callable[[], int]) -> None:
    """Let Celery restore what a worker fetches of itself, and nothing else.

    Parameters:
        consumer: The worker's consumer.
        held: For how many jobs the worker may fetch one message more.
    """
    restore = consumer._restore_prefetch_count_after_connection_restart

    def restored(*args: Any) -> None:
        qos, more = consumer.qos, held()
        with qos._mutex:
            qos.value -= more
            restore(*args)
            qos.value += more

    consumer._restore_prefetch_count_after_connection_restart = restored
