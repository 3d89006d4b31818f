"""Decides on each job that has got a pool slot: start it, hold it, or let it fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from steindamm.integrations.celery.line import Line
from steindamm.integrations.decisions import Decision, Defer, Start, decide
from steindamm.integrations.job_limits import Claim
from steindamm.semaphore import Semaphore

if TYPE_CHECKING:
    from steindamm.integrations.celery.request import GatedRequest
    from steindamm.integrations.celery.waiting_room import WaitingRoom

logger = logging.getLogger("steindamm.celery")

AT_ONCE = 0.001
"""Seconds; a shorter wait is none to a timer."""


class Gate:
    """The gate of one worker. Nothing that happens in it reaches the worker's loop: the job fails instead.

    Parameters:
        room: Where those wait that it does not let pass.
    """

    def __init__(self, room: WaitingRoom) -> None:
        self._room = room
        self._lines: dict[Any, Line] = {}

    def admits(self, request: GatedRequest, start: Callable[[], Any]) -> bool:
        """Whether a job may start now (or fail); else its pool slot is free again, and the job is held.

        Parameters:
            request: The job.
            start: Gives it to the pool.
        """
        try:
            return self._admits(request, start)
        except Exception as error:  # noqa: BLE001
            request.refuse(error)
            return True

    def close(self) -> None:
        """Stop waiting for slots."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def _admits(self, request: GatedRequest, start: Callable[[], Any]) -> bool:
        left = request.booking.left(time.time())
        if left > 0:
            self._room.hold(request, left)
            self._room.free_pool_slot()
            return False
        claim = request.claim()
        if claim is None:
            request.admit()
            return True
        if isinstance(claim.limiter, Semaphore):
            return self._line_at(claim.limiter).admits(request, claim)
        job = request.job_limit
        return self._act(request, claim, decide(job, claim, request.booking, accept=job.max_sleep), start)

    def _act(self, request: GatedRequest, claim: Claim, decision: Decision, start: Callable[[], Any]) -> bool:
        if isinstance(decision, Defer):
            request.defer(claim, decision)
            self._room.hold(request, decision.wait)
            self._room.free_pool_slot()
            return False
        if isinstance(decision, Start):
            request.admit(claim, decision)
            if decision.wait > AT_ONCE:
                self._room.launch_after(decision.wait, request, start)
                return False
        else:
            request.refuse(decision.error)
        return True

    def _line_at(self, limiter: Semaphore) -> Line:
        for key in [key for key, line in self._lines.items() if line.is_idle]:
            del self._lines[key]
        line = self._lines.get(limiter.backend)
        if line is None:
            line = self._lines[limiter.backend] = Line(self._room, limiter)
        return line
