"""`asyncio.timeout` for many blocks at once and after each other, with one timer for all of them.

A timer for each takes longer than much of what is done in such a block here, and one that is not needed any more stays
in the event loop's heap for a while, in the way of the others. Here one timer is set, for the first who will lose
patience; when it rings, it looks who has, and goes on to the next.
"""

from __future__ import annotations

import math
from asyncio import CancelledError, Task, TimerHandle, current_task, get_running_loop
from types import TracebackType
from typing import Any, Self

from steindamm.loops import EachLoop


class Timer:
    """Rings for those on the running loop who have lost patience.

    Attributes:
        loop: The loop.
    """

    def __init__(self) -> None:
        self.loop = get_running_loop()
        self._waiting: set[Patience] = set()
        self._handle: TimerHandle | None = None
        self._rings_at = math.inf

    def start(self, patience: Patience, seconds: float) -> None:
        """Ring for it in so many seconds."""
        patience.until = self.loop.time() + seconds
        self._waiting.add(patience)
        if patience.until < self._rings_at:
            self._ring_at(patience.until)

    def stop(self, patience: Patience) -> None:
        """Ring for it no more."""
        self._waiting.discard(patience)

    def _ring_at(self, moment: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._rings_at = moment
        self._handle = self.loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        self._handle, self._rings_at = None, math.inf
        now = self.loop.time()
        for patience in [each for each in self._waiting if each.until <= now]:
            self._waiting.remove(patience)
            patience.lose()
        following = min((patience.until for patience in self._waiting), default=math.inf)
        if following < math.inf:
            self._ring_at(following)


_timers = EachLoop(Timer)


class Patience:
    """A block that a task is in for no longer than so long; what runs in no task, or may take for ever, is let alone.

    Example:
        >>> import asyncio
        >>> async def late() -> None:
        ...     with Patience(0.01):
        ...         await asyncio.sleep(60)
        >>> asyncio.run(late())
        Traceback (most recent call last):
        TimeoutError

    Parameters:
        seconds: The longest that the block may take; infinite where it may take for ever.

    Raises:
        TimeoutError: It took longer.
    """

    __slots__ = ("_cancelling", "_is_lost", "_seconds", "_task", "_timer", "until")

    until: float
    _task: Task[Any] | None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_lost = False
        self._task = None

    def __enter__(self) -> Self:
        if self._seconds < math.inf:
            self._timer = timer = _timers.here()
            self._task = task = current_task(timer.loop)
            if task is not None:
                self._cancelling = task.cancelling()
                timer.start(self, self._seconds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task = self._task
        if task is None:
            return
        self._timer.stop(self)
        if self._is_lost and task.uncancel() <= self._cancelling and kind is CancelledError:
            raise TimeoutError from error

    def lose(self) -> None:
        """It has taken so long."""
        self._is_lost = True
        if self._task is not None:
            self._task.cancel()
