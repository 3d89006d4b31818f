"""Decides on each job that has got a pool slot: start it, hold it, or let it fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from steindamm.integrations.celery.asking import Asker, Direct
from steindamm.integrations.celery.line import Line
from steindamm.integrations.decisions import Asking, Decision, Defer, Start, asking, decide
from steindamm.integrations.job_limits import Claim
from steindamm.semaphore import Semaphore

if TYPE_CHECKING:
    from steindamm.integrations.celery.request import GatedRequest
    from steindamm.integrations.celery.waiting_room import WaitingRoom

AT_ONCE = 0.001
"""Seconds; a shorter wait is none to a timer."""


class Gate:
    """The gate of one worker. Nothing that happens in it reaches the worker's loop: the job fails instead.

    Parameters:
        room: Where those wait that it does not let pass.
    """

    def __init__(self, room: WaitingRoom) -> None:
        self._room = room
        self._lines: WeakValueDictionary[Any, Line] = WeakValueDictionary()

    def admits(self, job: GatedRequest, start: Callable[[], Any]) -> bool:
        """Whether a job may start now (or fail); else its pool slot is free again, and the job is held.

        Parameters:
            job: The job.
            start: Gives it to the pool.
        """
        try:
            return self._admits(job, start)
        except Exception as error:  # noqa: BLE001
            self._room.let_go(job)
            job.refuse(error)
            return True

    def patience_for(self, job: GatedRequest) -> float:
        """Seconds that a job may wait with its pool slot: while there are others, or when it is back for its turn."""
        may_sleep = self._room.has_free_slots or job.booking.turn is not None
        return job.job_limit.max_sleep if may_sleep else AT_ONCE

    def hear(self, job: GatedRequest, claim: Claim, decision: Decision) -> None:
        """Act on what was decided about a job, if it took long: the job has been held meanwhile, or has gone."""
        if not self._room.let_go(job):
            self.give_back(claim, decision)
        elif isinstance(decision, Defer):
            job.defer(claim, decision.booking, decision)
            self._room.hold(job, decision.wait)
        else:
            job.settle(claim, decision)
            if isinstance(decision, Start) and decision.wait > AT_ONCE:
                self._room.hold(job, decision.wait)
            else:
                self._room.send_on(job)

    def give_back(self, claim: Claim, decision: Decision) -> None:
        """Return what a limiter gave and nobody will use."""
        answer = decision.answer if isinstance(decision, (Start, Defer)) else None
        if answer is not None:
            limiter: Any = claim.limiter
            self._room.askers.of(limiter).tell(partial(limiter.give_back, answer))

    def close(self) -> None:
        """Stop waiting for slots."""
        for line in tuple(self._lines.values()):
            line.close()

    def _admits(self, job: GatedRequest, start: Callable[[], Any]) -> bool:
        self._room.recall(job)
        left = job.booking.left(time.time())
        if left > 0:
            self._room.hold(job, left)
            self._room.free_pool_slot()
            return False
        claim = job.claim
        if claim is None:
            job.admit()
            return True
        asker = self._room.askers.of(claim.limiter)
        if isinstance(claim.limiter, Semaphore):
            return self._line_at(claim.limiter, asker).admits(job, claim)
        question = StartQuestion(self, job, claim, job.departures, start)
        if self._room.loop_askers.send(claim.limiter, question):
            self._room.awaits(job)
            return False
        return self._act(job, claim, asker.ask(question), start)

    def go_on(self, question: StartQuestion, decision: Decision | None) -> None:
        """Act on what was decided about a job that kept its pool slot meanwhile, or on nothing having been decided."""
        job, claim = question.job, question.claim
        if not question.is_wanted:
            if decision is not None:
                self.give_back(claim, decision)
            return
        self._room.leaves(job)
        try:
            starts = self._act(job, claim, decision, question.start)
        except Exception as error:  # noqa: BLE001
            self._room.let_go(job)
            job.refuse(error)
            starts = True
        if starts:
            self._room.launch(job, question.start)

    def _act(self, job: GatedRequest, claim: Claim, decision: Decision | None, start: Callable[[], Any]) -> bool:
        if decision is None:
            booking = job.booking
            job.defer(claim, booking.deferred(booking.limiter, booking.turn, time.time()), None)
            self._room.hold_open(job)
        elif isinstance(decision, Defer):
            job.defer(claim, decision.booking, decision)
            self._room.hold(job, decision.wait)
        else:
            job.settle(claim, decision)
            if isinstance(decision, Start) and decision.wait > AT_ONCE:
                self._room.launch_after(decision.wait, job, start)
                return False
            return True
        self._room.free_pool_slot()
        return False

    def _line_at(self, limiter: Semaphore, asker: Asker | Direct) -> Line:
        line = self._lines.get(limiter.backend)
        return line or self._lines.setdefault(limiter.backend, Line(self._room, limiter, asker))


@dataclass(eq=False)
class StartQuestion:
    """Whether a job may start.

    Parameters:
        gate: Who wants to know.
        job: The job.
        claim: What it asks for.
        departures: How often it had left the waiting room.
        start: Gives it to the pool.
    """

    gate: Gate
    job: Any
    claim: Claim
    departures: int
    start: Callable[[], Any]
    is_late: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether the job has not left since."""
        return bool(self.job.departures == self.departures)

    def asking(self) -> Asking:
        """What it asks."""
        job = self.job
        return asking(job.job_limit, self.claim, job.booking, accept=self.gate.patience_for(job))

    def ask(self) -> Decision:
        """Ask."""
        job = self.job
        return decide(job.job_limit, self.claim, job.booking, accept=self.gate.patience_for(job))

    def heard(self, decision: Decision | None) -> None:
        """Tell the gate; of a late answer, once that there is none, and then the answer."""
        if not self.is_late:
            self.is_late = decision is None
            self.gate.go_on(self, decision)
        elif decision is not None:
            self.answered(decision)

    def answered(self, decision: Decision) -> None:
        """Tell the gate."""
        self.gate.hear(self.job, self.claim, decision)
