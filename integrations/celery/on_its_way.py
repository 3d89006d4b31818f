"""A job on its way to a pool process, while the worker's consumer closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.pool import ApplyResult


class OnItsWay(ApplyResult):
    """What the pool knows of a job that may have been written to a pool process.

    A consumer that closes lets the pool discard each job that no process has reported yet, since the broker delivers it
    again. One that was written by then runs all the same, and so would run twice, unacknowledged; and its process would
    wait for half a minute for the pool to take note of it before it ends.

    Attributes:
        forgotten: Called when the job is discarded; it will not run here.
    """

    forgotten: Callable[[], None]

    def discard(self) -> None:
        """Forget the job, unless a process has it."""
        process = self._write_to
        if process is None or not process._is_alive():
            super().discard()
            self.forgotten()


def known_on_its_way(result: Any, forgotten: Callable[[], None]) -> Any:
    """The result of a job that was given to the pool, so that the pool forgets it only where it will not run."""
    if type(result) is ApplyResult:
        result.__class__ = OnItsWay
        result.forgotten = forgotten
    return result
