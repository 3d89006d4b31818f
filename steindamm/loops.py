"""What there is to know of event loops: things that belong to one each, and when a task must end."""

from __future__ import annotations

from asyncio import AbstractEventLoop, current_task, get_running_loop
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class EachLoop(Generic[Thing]):
    """A thing for each event loop that asks, made when it first does; a closed loop's is let go.

    Parameters:
        make: Makes the thing on the running loop.
    """

    def __init__(self, make: Callable[[], Thing]) -> None:
        self._make = make
        self._by_loop: dict[AbstractEventLoop, Thing] = {}

    def here(self) -> Thing:
        """The running loop's."""
        loop = get_running_loop()
        thing = self._by_loop.get(loop)
        if thing is None:
            for closed in [other for other in tuple(self._by_loop) if other.is_closed()]:
                self._by_loop.pop(closed, None)
            thing = self._by_loop[loop] = self._make()
        return thing


def must_end() -> bool:
    """Whether this task was cancelled, though what it awaited let nothing through: redis-py, while it connects."""
    task = current_task()
    return task is not None and task.cancelling() > 0
