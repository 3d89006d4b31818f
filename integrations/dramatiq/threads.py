"""What the threads of a worker are doing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident


class Threads:
    """The threads that run the jobs of one worker.

    Parameters:
        total: How many there are.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._sleeping: set[int] = set()
        self._running: set[int] = set()

    @property
    def free(self) -> int:
        """How many neither run a job nor sleep for one."""
        return self._total - len(self._running) - len(self._sleeping)

    @property
    def may_sleep(self) -> bool:
        """Whether one more may sleep: another is free for jobs without a limit, and half of all don't sleep."""
        return self.free > 1 and len(self._sleeping) < self._total // 2

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """This thread sleeps for its job."""
        self._sleeping.add(get_ident())
        try:
            yield
        finally:
            self._sleeping.discard(get_ident())

    def run(self) -> None:
        """This thread runs a job from now on."""
        self._running.add(get_ident())

    def rest(self) -> None:
        """It runs none any more."""
        self._running.discard(get_ident())
