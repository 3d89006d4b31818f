"""Does what must not be cut short.

`TimeLimit`, the end of a worker and an abort raise an interrupt in the thread that runs a job, wherever that is just
then. What another thread does meanwhile is out of their reach.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Lock, Thread, get_ident
from typing import Any

from dramatiq.middleware import Interrupt


class Errand:
    """Something to do once, in the context of who asks for it.

    Parameters:
        work: What to do.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._context = copy_context()
        self._begun = Lock()
        self._ended = Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do it, unless it was begun already."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._result = self._context.run(self._work)
        except BaseException as error:  # noqa: BLE001
            self._error = error
        finally:
            self._ended.set()

    def result(self) -> Any:
        """What came of it; waits until it is done."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result


class Errands:
    """The errands of one worker, and a helper for each of its threads that ever had one."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Errand | None] = SimpleQueue()
        self._helped: set[int] = set()

    def do(self, work: Callable[[], Any]) -> Any:
        """Do something whole, and only once. An interrupt comes before it, or it comes to nothing."""
        errand = Errand(work)
        while True:
            try:
                self._get_helper()
                self._waiting.put(errand)
                return errand.result()
            except Interrupt:
                pass

    def close(self) -> None:
        """Send the helpers away."""
        for _ in range(len(self._helped)):
            self._waiting.put(None)
        self._helped.clear()

    def _get_helper(self) -> None:
        if get_ident() not in self._helped:
            Thread(target=self._help, name="steindamm-errands", daemon=True).start()
            self._helped.add(get_ident())

    def _help(self) -> None:
        while (errand := self._waiting.get()) is not None:
            errand.run()
            del errand
