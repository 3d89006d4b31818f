"""`asyncio.timeout` for one question after another, with one timer for all of them.

A timer for each question takes longer than the rest of what is done for it here. Here the timer stays, and looks, when
it rings, how long the question that is under way then has been so.
"""

from __future__ import annotations

from asyncio import CancelledError, Task, TimerHandle, current_task, get_running_loop
from types import TracebackType
from typing import Any, Self


class Deadline:
    """A block that a task is in for no longer than so long; one task at a time.

    Example:
        >>> import asyncio
        >>> async def late() -> None:
        ...     deadline = Deadline(0.01)
        ...     with deadline:
        ...         await asyncio.sleep(60)
        >>> asyncio.run(late())
        Traceback (most recent call last):
        TimeoutError

    Parameters:
        seconds: The longest that a block may take.

    Raises:
        TimeoutError: It took longer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = get_running_loop()
        self._timer: TimerHandle | None = None
        self._task: Task[Any] | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._task = task = current_task()
        self._cancelling = task.cancelling() if task else 0
        self._since = self._loop.time()
        if self._timer is None:
            self._ring_at(self._since + self._seconds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        if task is not None and self._is_over:
            self._is_over = False
            if task.uncancel() <= self._cancelling and kind is CancelledError:
                raise TimeoutError from error

    def _ring_at(self, moment: float) -> None:
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._since + self._seconds:
            self._ring_at(self._since + self._seconds)
        else:
            self._is_over = True
            self._task.cancel()
