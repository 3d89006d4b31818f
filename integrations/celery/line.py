"""A worker's jobs that wait for a slot of one semaphore.

The worker has one waiter at the semaphore, for the first of its jobs in line; it is woken when the slot is
handed over, and asks for the next one.
"""

from __future__ import annotations

import time
from bisect import insort
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from steindamm.answers import Answer
from steindamm.integrations.celery.asking import Asker, Direct
from steindamm.integrations.decisions import Decision, Defer, Fail, Start, decide
from steindamm.integrations.job_limits import Claim

if TYPE_CHECKING:
    from steindamm.integrations.celery.request import GatedRequest
    from steindamm.integrations.celery.waiting_room import WaitingRoom
    from steindamm.semaphore import Semaphore


class Standing(NamedTuple):
    """A job in line, by the time at which it was deferred first; the number tells equal ones apart."""

    since: float
    number: int
    job: Any
    claim: Claim


class Line:
    """The line of one worker at one semaphore; it lives as long as a job stands in it.

    Parameters:
        room: Where the jobs are held.
        limiter: The semaphore.
        asker: Who asks it.
    """

    def __init__(self, room: WaitingRoom, limiter: Semaphore, asker: Asker | Direct) -> None:
        self._room = room
        self._limiter: Any = limiter
        self._asker = asker
        self._changing = Lock()
        self._standing: list[Standing] = []
        self._arrivals = 0
        self._is_asking = False
        self._waiter: Answer | None = None

    def admits(self, job: GatedRequest, claim: Claim) -> bool:
        """Whether the job may start now (or fail); else it stands in line, and its pool slot is free again."""
        decision = self._ask(job, claim) if self._turns_to_newcomer() else None
        is_admitted = isinstance(decision, (Start, Fail))
        if isinstance(decision, (Start, Fail)):
            self._is_asking = False
            job.settle(claim, decision)
        else:
            self._stand(job, claim, decision)
        self._serve()
        return is_admitted

    def hear(self, job: GatedRequest, claim: Claim, decision: Decision) -> None:
        """Act on what was decided about a job, if it took long."""
        self._act(job, claim, decision)
        self._serve()

    def wake(self) -> None:
        """A slot was handed over; called by whatever thread hears of it."""
        self._room.waker.call(self._serve)

    def close(self) -> None:
        """Leave the semaphore; the jobs go elsewhere."""
        with self._changing:
            waiter, self._waiter = self._waiter, None
            self._standing.clear()
        if waiter is not None:
            self._give_back(waiter)

    def _stand(self, job: GatedRequest, claim: Claim, decision: Defer | None) -> None:
        name = claim.limiter.name
        booking = job.booking.deferred(name, job.booking.turn_at(name), time.time())
        job.defer(claim, booking, decision)
        job.line = self
        self._room.hold_open(job)
        with self._changing:
            self._arrivals += 1
            insort(self._standing, Standing(booking.since or 0.0, self._arrivals, job, claim))
        if decision is not None:
            self._act(job, claim, decision)
        self._room.free_pool_slot()

    def _serve(self) -> None:
        """Let jobs start for as long as there are slots for them; then have one of them wait for the next."""
        while self._takes_handed_slot() or self._asks_for_first():
            pass

    def _takes_handed_slot(self) -> bool:
        with self._changing:
            waiter = self._waiter
            permit = None if waiter is None else self._limiter.permit_of(waiter)
            if waiter is None or permit is None:
                return False
            self._waiter = None
        self._admit_first(Start(0.0, waiter._replace(permit=permit)))
        return True

    def _asks_for_first(self) -> bool:
        """False when there is nobody to ask about, or no answer yet."""
        with self._changing:
            if self._is_taken() or not self._standing:
                return False
            self._is_asking = True
            first = self._standing[0]
        decision = self._ask(first.job, first.claim)
        if decision is None:
            return False
        self._act(first.job, first.claim, decision)
        return True

    def _turns_to_newcomer(self) -> bool:
        """Whether to ask about one who has just come: nobody stands before it."""
        with self._changing:
            if self._is_taken() or self._standing:
                return False
            self._is_asking = True
            return True

    def _is_taken(self) -> bool:
        """Whether somebody asks, or waits at the semaphore; what has left the room meanwhile is forgotten."""
        while self._standing and not self._room.holds(self._standing[0].job):
            del self._standing[0]
        return self._is_asking or self._waiter is not None

    def _ask(self, job: GatedRequest, claim: Claim) -> Decision | None:
        return self._asker.ask(SlotQuestion(self, job, claim))

    def _act(self, job: GatedRequest, claim: Claim, decision: Decision) -> None:
        with self._changing:
            self._is_asking = False
            if isinstance(decision, Defer):
                self._waiter = decision.answer
                job.booking = job.booking._replace(limiter=claim.limiter.name, turn=decision.booking.turn)
                return
        if isinstance(decision, Start):
            self._admit_first(decision)
        elif self._room.let_go(job):
            job.settle(claim, decision)
            self._room.send_on(job)

    def _admit_first(self, start: Start) -> None:
        """Give a slot to whoever is first by now; one that was revoked, or has expired, is sent on without."""
        while True:
            with self._changing:
                first = self._standing.pop(0) if self._standing else None
            if first is None:
                self._give_back(start.answer)
                return
            if self._room.let_go(first.job):
                is_void = first.job.is_void
                if not is_void:
                    first.job.settle(first.claim, start)
                self._room.send_on(first.job)
                if not is_void:
                    return

    def _give_back(self, answer: Answer) -> None:
        self._asker.tell(partial(self._limiter.give_back, answer))


@dataclass(frozen=True)
class SlotQuestion:
    """Whether there is a slot for a job, or else for whoever is first in its line then."""

    line: Line
    job: Any
    claim: Claim

    is_wanted: ClassVar[bool] = True

    def ask(self) -> Decision:
        """Ask; where no slot is free, the line is woken when there is one."""
        return decide(self.job.job_limit, self.claim, self.job.booking, accept=0.0, wake=self.line.wake)

    def answered(self, decision: Decision) -> None:
        """Tell the line."""
        self.line.hear(self.job, self.claim, decision)
