"""Asks a job's limiter in the worker thread that would run the job.

The thread sleeps through a short wait. A longer one it sleeps through only while enough other threads are
awake; else the job goes back to its queue.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from threading import Event
from typing import Any

from steindamm.answers import Answer
from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Decision, Defer, Start, again
from steindamm.integrations.dramatiq.outages import Outages
from steindamm.integrations.dramatiq.threads import Threads
from steindamm.integrations.job_limits import Claim, JobLimit
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOf

PATIENCE = 1.0
"""Seconds that a job which is back for its turn may wait for those before it: queues deliver late."""
SHORT = 0.05
"""The same where its thread may not sleep: less than what it takes to send the job away and to have it back."""
FIRST_LOOK = 0.5
"""Seconds after which a job that was sent away from a semaphore asks again for the first time: while no slot
has come back, what it was told is a guess."""


class Gate:
    """The gate of one worker.

    Parameters:
        threads: The worker's threads.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._outages = Outages()
        self._alarms: set[Event] = set()
        self._closed = False

    def close(self) -> None:
        """Wake all who sleep: the worker ends, their jobs go back to the queue."""
        self._closed = True
        for alarm in tuple(self._alarms):
            alarm.set()

    def ask(self, limit: JobLimit, claim: Claim, booking: Booking) -> Decision:
        """Decide on one job; one that may start may do so at once, its wait has been slept through."""
        while True:
            decision = self._ask(limit, claim, booking)
            if not isinstance(decision, Start) or not decision.is_missed:
                return decision
            give_back(claim, decision.answer)
            booking = again(claim, booking, decision)

    def _ask(self, limit: JobLimit, claim: Claim, booking: Booking) -> Decision:
        is_back = booking.turn_at(claim.limiter.name) is not None
        bearable = max(limit.max_sleep, PATIENCE) if is_back else limit.max_sleep
        may_sleep = self._threads.may_sleep
        if isinstance(claim.limiter, Semaphore):
            return self._ask_semaphore(limit, claim, booking, bearable if may_sleep else 0.0)
        if isinstance(claim.limiter, AllOf):
            return self._ask_several(limit, claim, booking, bearable if may_sleep else 0.0)
        if not may_sleep:
            bearable = SHORT if is_back else 0.0
        decision = self._outages.decide(limit, claim, booking, accept=bearable)
        return self._slept(claim, booking, decision) if isinstance(decision, Start) else decision

    def _slept(self, claim: Claim, booking: Booking, start: Start) -> Decision:
        if start.wait <= 0:
            return start
        slept = False
        try:
            slept = not self._sleep(start.wait, Event())
        finally:
            if not slept:
                give_back(claim, start.answer)
        if slept:
            return start
        turn: Any = start.answer.turn
        return Defer(start.wait, booking.deferred(claim.limiter.name, turn, time.time()))

    def _ask_semaphore(self, limit: JobLimit, claim: Claim, booking: Booking, accept: float) -> Decision:
        if accept > 0:
            decision = self._listen(limit, claim, booking, accept)
            if not isinstance(decision, Defer) or decision.answer is None:
                return decision
            booking = booking._replace(limiter=claim.limiter.name, turn=decision.booking.turn)
        decision = self._outages.decide(limit, claim, booking, accept=0.0)
        if isinstance(decision, Defer) and booking.deferrals == 0:
            return replace(decision, wait=min(decision.wait, FIRST_LOOK))
        return decision

    def _ask_several(self, limit: JobLimit, claim: Claim, booking: Booking, patience: float) -> Decision:
        """Several limits keep nothing for one who sleeps: it asks again when its wait is over."""
        give_up = monotonic() + patience
        while True:
            decision = self._outages.decide(limit, claim, booking, accept=patience)
            if isinstance(decision, Start):
                return self._slept(claim, booking, decision)
            if not isinstance(decision, Defer) or decision.answer is None:
                return decision
            if monotonic() + decision.wait > give_up or self._sleep(decision.wait, Event()):
                is_guess = decision.answer.ticket is not None and booking.deferrals == 0
                return replace(decision, wait=min(decision.wait, FIRST_LOOK)) if is_guess else decision
            booking = booking._replace(limiter=claim.limiter.name, turn=decision.booking.turn)

    def _listen(self, limit: JobLimit, claim: Claim, booking: Booking, accept: float) -> Decision:
        """Stand in line for a while, to be handed a slot the moment that one is free."""
        limiter: Any = claim.limiter
        handed = Event()
        decision = self._outages.decide(limit, claim, booking, accept=accept, wake=handed.set)
        if not isinstance(decision, Defer) or decision.answer is None:
            return decision
        permit = None
        try:
            self._sleep(accept, handed)
            permit = limiter.permit_of(decision.answer)
        finally:
            if permit is None:
                give_back(claim, decision.answer)
        return decision if permit is None else Start(0.0, decision.answer._replace(permit=permit))

    def _sleep(self, seconds: float, alarm: Event) -> bool:
        """Sleep until the alarm, but not longer than so many seconds; whether there was one."""
        self._alarms.add(alarm)
        try:
            with self._threads.asleep():
                return self._closed or alarm.wait(seconds)
        finally:
            self._alarms.discard(alarm)


def give_back(claim: Claim, answer: Answer) -> None:
    """Return what a job was given and will not use."""
    limiter: Any = claim.limiter
    with suppress(LimiterUnavailableError):
        limiter.give_back(answer)
