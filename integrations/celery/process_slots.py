"""Keeps a pool of processes from being given more jobs than it has processes, while these come and go.

The pool frees a slot for each process that ends, in case it took a job along that never frees its own. One that ends
between two jobs, since it has run its share of them (`max_tasks_per_child`), grew too big, or is not needed any
longer, takes none: each such slot would let one more job past the gate, with its tokens and its slots taken, to wait in
the pool's own queue. So would a pool that grows, for which Celery counts each new process twice, and a connection that
is lost, after which it takes all slots for free though jobs run on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.concurrency.prefork import TaskPool


class ProcessSlots:
    """What the pool holds in the place of the worker's slots, for the times when a process comes or goes.

    Parameters:
        slots: The worker's slots; in all other respects these are they.
        taken: How many are taken.
    """

    def __init__(self, slots: Any, taken: Callable[[], int]) -> None:
        self._slots = slots
        self._taken = taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slots, name)

    def count(self) -> None:
        """Count anew which are free."""
        self._slots.value = max(0, self._slots.initial_value - self._taken())

    def release(self) -> None:
        """Free a slot, if there are fewer than there are processes."""
        if self._slots.value + self._taken() < self._slots.initial_value:
            self._slots.release()

    def grow(self, n: int = 1) -> None:
        """Add slots for new processes."""
        self._slots.initial_value += n
        for _ in range(n):
            self.release()


def count_slots_of_processes(consumer: Any, promised: Callable[[], int]) -> None:
    """Let the slots be as many as there are processes, if a worker runs its jobs in processes; called at each start.

    Parameters:
        consumer: The worker's consumer; its pool has started.
        promised: How many slots are taken by jobs that the pool does not have yet.
    """
    if consumer.hub is None or not isinstance(consumer.pool, TaskPool):
        return
    pool = consumer.pool._pool

    def taken() -> int:
        return sum(not job.ready() for job in pool._cache.values()) + promised()

    if not isinstance(pool._putlock, ProcessSlots):
        pool._putlock = ProcessSlots(pool._putlock, taken)
    pool._putlock.count()
