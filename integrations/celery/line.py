"""A worker's jobs that wait for a slot of one semaphore.

The worker has one waiter at the semaphore, for the first of its jobs in line; it is woken when the slot is
handed over, and asks for the next one.
"""

from __future__ import annotations

import time
from bisect import insort
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

from steindamm.answers import Answer
from steindamm.errors import MaxSleepExceededError
from steindamm.integrations.decisions import Decision, Defer, Fail, Start, decide
from steindamm.integrations.job_limits import Claim

if TYPE_CHECKING:
    from steindamm.integrations.celery.request import GatedRequest
    from steindamm.integrations.celery.waiting_room import WaitingRoom
    from steindamm.semaphore import Semaphore


class Waiting(NamedTuple):
    """A job in line, by the time at which it was deferred first; the number tells equal ones apart."""

    since: float
    number: int
    request: Any
    claim: Claim


class Line:
    """The line of one worker at one semaphore.

    Parameters:
        room: Where the jobs are held.
        limiter: The semaphore.
    """

    def __init__(self, room: WaitingRoom, limiter: Semaphore) -> None:
        self._room = room
        self._limiter: Any = limiter
        self._lock = RLock()
        self._waiting: list[Waiting] = []
        self._arrivals = 0
        self._asked: Answer | None = None
        self._asking_again: Any = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits, here or at the semaphore."""
        return not self._waiting and self._asked is None

    def admits(self, request: GatedRequest, claim: Claim) -> bool:
        """Whether the job gets a slot now; else it stands in line, and its pool slot is free again."""
        with self._lock:
            if not self._waiting:
                decision = self._ask(request, claim)
                if not isinstance(decision, Defer):
                    _settle(request, claim, decision)
                    return True
            else:
                decision = Defer(0.0, request.booking.deferred(claim.limiter.name, None, time.time()))
            request.defer(claim, decision)
            self._stand(request, claim)
        self._room.free_pool_slot()
        return False

    def close(self) -> None:
        """Leave the semaphore; the jobs go elsewhere."""
        with self._lock:
            asked, self._asked = self._asked, None
            self._waiting.clear()
            self._cancel_asking()
        if asked is not None:
            self._limiter.give_back(asked)

    def _stand(self, request: GatedRequest, claim: Claim) -> None:
        self._arrivals += 1
        since = request.booking.since or 0.0
        insort(self._waiting, Waiting(since, self._arrivals, request, claim))
        self._room.hold(request, min(request.patience, self._room.longest_hop), self._stood_for_long)

    def _stood_for_long(self, request: GatedRequest) -> None:
        """Fail, if it may not wait any longer; else go back to the queue, so that the broker does not lose patience."""
        with self._lock:
            self._waiting = [waiting for waiting in self._waiting if waiting.request is not request]
        if request.patience > 0:
            self._room.hand_back(request)
        else:
            request.refuse(MaxSleepExceededError(self._limiter.name, None, request.job_limit.max_deferral))
            self._room.resume(request)

    def _ask(self, request: GatedRequest, claim: Claim) -> Decision:
        """Ask for a slot; where none is free, the answer is the line's, whoever is first when it comes."""
        decision = decide(request.job_limit, claim, request.booking, accept=0.0, wake=self._wake)
        if isinstance(decision, Defer):
            if decision.answer is not None:
                self._asked = decision.answer
            else:
                self._asking_again = self._room.call_after(decision.wait, self._ask_for_first)
        return decision

    def _wake(self) -> None:
        """Called by whatever thread hears of the hand-over."""
        self._room.waker.call(self._handed)

    def _handed(self) -> None:
        with self._lock:
            asked = self._asked
            permit = None if asked is None else self._limiter.permit_of(asked)
            if asked is None or permit is None:
                return
            self._asked = None
            if not self._waiting:
                self._limiter.release(permit)
                return
            self._admit_first(Start(0.0, replace(asked, permit=permit)))
            self._ask_for_first()

    def _ask_for_first(self) -> None:
        with self._lock:
            self._cancel_asking()
            while self._waiting and self._asked is None:
                decision = self._ask(self._waiting[0].request, self._waiting[0].claim)
                if isinstance(decision, Defer):
                    return
                self._admit_first(decision)

    def _admit_first(self, decision: Start | Fail) -> None:
        first = self._waiting.pop(0)
        _settle(first.request, first.claim, decision)
        self._room.resume(first.request)

    def _cancel_asking(self) -> None:
        if self._asking_again is not None:
            self._room.cancel(self._asking_again)
            self._asking_again = None


def _settle(request: GatedRequest, claim: Claim, decision: Start | Fail) -> None:
    if isinstance(decision, Start):
        request.admit(claim, decision)
    else:
        request.refuse(decision.error)
