"""One delivery of a job: from the moment at which a worker has taken it until it has ended, or is put back."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from steindamm.async_semaphore import waker
from steindamm.background import in_background, within
from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError, MaxSleepExceededError
from steindamm.integrations.arq.deferral import deferral
from steindamm.integrations.arq.due import Due, holding
from steindamm.integrations.arq.entry import BROKER_ERRORS, Entry
from steindamm.integrations.arq.room import waiting_room
from steindamm.integrations.arq.terms import BEGAN, WorkerTerms
from steindamm.integrations.bodies import aput_off
from steindamm.integrations.bookings import NO_BOOKING, Booking
from steindamm.integrations.decisions import (
    Decision,
    Defer,
    Fail,
    Start,
    Unavailable,
    adecide,
    again,
    holds_slots,
    permit_of,
    time_left,
    unanswered,
)
from steindamm.integrations.job_limits import Claim, JobLimit
from steindamm.integrations.waiting import note_end, note_wait
from steindamm.patience import Patience
from steindamm.running import running
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOf
from steindamm.token_bucket import TokenBucket

logger = logging.getLogger("steindamm.arq")

LITTLE_WAIT = 1.0
"""Seconds that a job whose turn is near may wait in the worker: arq looks into its queue now and then only."""
LEAD = 0.1
"""Seconds by which a job comes back before its turn, to start neither late nor together with those after it."""
AHEAD = 0.2
"""Seconds by which a job is let start ahead. It does not hear of what is changed of the limiter in that time."""
SHORTEST_WAIT = 0.001
LONGEST_HOP = 900.0
"""Seconds; who must wait longer is put back more than once, and hears of what was changed meanwhile."""
TIMED_OUT = 0.1
"""Seconds before a job's timeout from which on it counts as over: nobody waits so long."""
AGAIN = 1.0
"""Seconds after which a job that could not be put back asks again."""
RELEASE_PATIENCE = 1.0
"""Seconds that the end of a job waits for its slot to be given back; it is given back all the same."""


class Delivery:
    """One delivery of a limited job.

    Parameters:
        limit: The limit of its function.
        claim: What the job asks for; None where it is not limited.
        ctx: The job's context.
        terms: How its worker treats it.
    """

    def __init__(self, limit: JobLimit, claim: Claim | None, ctx: Mapping[str, Any], terms: WorkerTerms) -> None:
        self._limit = limit
        self._claim = claim
        self._entry = Entry(ctx)
        self._terms = terms
        self._stays = not terms.retry_jobs
        began: float = ctx.get(BEGAN, monotonic())
        self._ends_at = began + terms.timeout
        self._answered_by = began + terms.answer_within

    async def run(self, body: Callable[[], Awaitable[Any]]) -> Any:
        """Run the body when the job may start.

        Raises:
            Retry: The job may not start yet; it is ready to be put back.
            Exception: The job fails: its wait is too long, or its body raised that.
        """
        booking = NO_BOOKING
        if self._entry.may_be_booked:
            booking = await self._waiting(self._entry.booking(), booking)
        while True:
            start = await self._waiting(self._leave_to_start(booking), booking)
            try:
                with holding(Due(self._entry.job_id)), running(partial(permit_of, start)):
                    return await body()
            except self._limit.not_now as error:
                not_now = error
            finally:
                if self._claim and start and holds_slots(start):
                    await self._release(self._claim, start)
            booking = await self._waiting(self._put_off(booking, not_now), booking)

    async def _put_off(self, booking: Booking, not_now: Exception) -> Booking:
        return await self._defer(await aput_off(self._limit, self._claim, booking, not_now))

    async def _waiting(self, waiting: Awaitable[Any], booking: Booking) -> Any:
        """A worker that ends, or an abort, finds the job only waiting: that was no try.

        Nor does its timeout make it fail. That comes only where the process has stood still, and sends the job back.
        """
        try:
            return await waiting
        except asyncio.CancelledError:
            if not self._stays and self._until_timeout() < TIMED_OUT:
                await asyncio.shield(in_background(self._go_back(Defer(SHORTEST_WAIT, booking))))
            await asyncio.shield(in_background(self._entry.spare_the_try()))
            raise

    async def _leave_to_start(self, booking: Booking) -> Start | None:
        """What lets the job start; None where nothing limits it."""
        if booking.until is not None:
            booking = await self._until_worth_asking(booking)
        with waiting_room() as others:
            has_place = others < self._terms.places
            while self._claim is not None:
                decision = await self._decide_in_time(self._claim, booking, has_place=has_place)
                if isinstance(decision, Start):
                    if decision.wait > 0 or self._entry.may_be_booked:
                        await self._come_to(self._claim, decision)
                    if self._is_in_time(decision):
                        note_end(self._claim, booking)
                        return decision
                    await self._give_back(self._claim, decision)
                    decision = Defer(0.0, again(self._claim, booking, decision))
                booking = await self._defer(decision)
        if self._entry.may_be_booked:
            await self._entry.forget_booking()
        return None

    async def _until_worth_asking(self, booking: Booking) -> Booking:
        while (left := booking.left(time.time())) > LITTLE_WAIT:
            booking = await self._defer(Defer(left, booking))
        if left > 0:
            await asyncio.sleep(left)
        return booking

    async def _decide_in_time(self, claim: Claim, booking: Booking, *, has_place: bool) -> Decision:
        """A limiter that has not answered when the job must go back, lest its timeout ends it, is unavailable.

        Who is cancelled while it asks a bucket leaves at once; who asks for slots gives them back first.
        """
        patience = math.inf if self._stays else self._answered_by - monotonic()
        deciding = self._decide(claim, booking, has_place=has_place)
        try:
            if not isinstance(claim.limiter, TokenBucket):
                return await within(None if patience == math.inf else patience, deciding)
            with Patience(patience):
                return await deciding
        except TimeoutError as error:
            unavailable = LimiterUnavailableError(claim.limiter.name, type(error).__name__)
            return unanswered(self._limit, claim, booking, unavailable)

    async def _decide(self, claim: Claim, booking: Booking, *, has_place: bool) -> Decision:
        patience = self._patience(claim, booking, has_place=has_place)
        decision = await adecide(self._limit, claim, booking, accept=min(patience, AHEAD))
        if isinstance(decision, Start):
            return decision
        if not isinstance(claim.limiter, Semaphore):
            return await self._decide_at_its_turn(claim, booking, decision, patience)
        if isinstance(decision, Defer) and decision.answer is not None:
            booking = booking._replace(limiter=claim.limiter.name, turn=decision.booking.turn)
            if self._stays or decision.wait <= patience:
                return await self._decide_when_handed(claim, booking, patience)
        return decision

    async def _decide_at_its_turn(
        self, claim: Claim, booking: Booking, decision: Decision, patience: float
    ) -> Decision:
        """A job that waits in the worker asks again when its turn comes, which may have moved meanwhile."""
        give_up = monotonic() + patience
        early = 0.0 if isinstance(claim.limiter, AllOf) else LEAD
        while isinstance(decision, Defer) and decision.answer and monotonic() + decision.wait <= give_up:
            try:
                await asyncio.sleep(max(0.0, decision.wait - early))
            except asyncio.CancelledError:
                limiter: Any = claim.limiter
                in_background(limiter.give_back(decision.answer))
                raise
            booking = booking._replace(limiter=claim.limiter.name, turn=decision.booking.turn)
            decision = await adecide(self._limit, claim, booking, accept=min(patience, AHEAD))
        return decision

    def _patience(self, claim: Claim, booking: Booking, *, has_place: bool) -> float:
        """Seconds that the job may wait in the worker. A turn that has come is not given up for want of a place."""
        if self._stays:
            return self._until_timeout()
        patience = min(self._limit.max_sleep, time_left(self._limit, booking, time.time())) if has_place else 0.0
        has_turn = booking.turn is not None and booking.turn_at(claim.limiter.name) is not None
        if has_turn and not isinstance(claim.limiter, Semaphore):
            patience = max(patience, LITTLE_WAIT)
        return min(patience, self._terms.longest_wait)

    def _until_timeout(self) -> float:
        return max(0.0, self._ends_at - monotonic())

    async def _decide_when_handed(self, claim: Claim, booking: Booking, patience: float) -> Decision:
        """Wait to be handed a slot; without one, the job goes away and keeps its place."""
        limiter: Any = claim.limiter
        handed = asyncio.Event()
        decision = await adecide(self._limit, claim, booking, accept=patience, wake=waker(handed))
        if not isinstance(decision, Defer) or decision.answer is None:
            return decision
        answer = decision.answer
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(handed.wait(), patience if patience < math.inf else None)
            permit = limiter.permit_of(answer)
            if permit is not None:
                return Start(0.0, answer._replace(permit=permit))
            away = await adecide(self._limit, claim, booking, accept=patience)
        except BaseException:
            await asyncio.shield(in_background(limiter.give_back(answer)))
            raise
        await limiter.give_back(answer)
        return away

    async def _come_to(self, claim: Claim, start: Start) -> None:
        """Wait for the start; where that is cut short, what was given is given back."""
        try:
            if start.wait > 0:
                await asyncio.sleep(start.wait)
            if self._entry.may_be_booked:
                await self._entry.forget_booking()
        except BaseException:
            await self._give_back(claim, start)
            raise

    def _is_in_time(self, start: Start) -> bool:
        """Whether a job whose turn has come may start: the turn is not missed, nor the timeout near."""
        return not start.is_missed and (self._stays or self._until_timeout() > TIMED_OUT)

    async def _give_back(self, claim: Claim, start: Start) -> None:
        limiter: Any = claim.limiter
        await asyncio.shield(in_background(limiter.give_back(start.answer)))

    async def _defer(self, decision: Defer | Fail) -> Booking:
        """Put the job back; one that can't be put back waits here, and asks again with its booking."""
        if isinstance(decision, Fail):
            raise decision.error
        note_wait(self._claim, decision.booking, decision)
        if not self._stays:
            await self._go_back(decision)
        await self._stay(decision)
        return decision.booking

    async def _go_back(self, decision: Defer) -> None:
        wait = min(max(decision.wait - lead(decision), SHORTEST_WAIT), LONGEST_HOP)
        try:
            self._stays = not await self._entry.put_back(wait, decision.booking)
        except BROKER_ERRORS as error:
            logger.warning("job %r is not put back yet: %s", self._entry.job_id, type(error).__name__)
        else:
            if not self._stays:
                self._log(decision, wait)
                raise deferral(wait, self._waits_for(decision))

    def _log(self, decision: Defer, wait: float) -> None:
        if isinstance(decision, Unavailable):
            logger.warning("job %r waits %.3f s: %s", self._entry.job_id, wait, decision.error)
        else:
            logger.info("job %r waits %.3f s for limiter %r", self._entry.job_id, wait, self._waits_for(decision))

    async def _stay(self, decision: Defer) -> None:
        left = self._until_timeout()
        if self._stays and decision.wait > left:
            if self._claim is not None and decision.answer is not None:
                limiter: Any = self._claim.limiter
                await limiter.give_back(decision.answer)
            raise MaxSleepExceededError(self._waits_for(decision), decision.wait, left)
        await asyncio.sleep(min(decision.wait, AGAIN))

    def _waits_for(self, decision: Defer) -> str:
        """A limiter's name; that of the body's own one where that refused."""
        return decision.booking.limiter or (self._claim.limiter.name if self._claim else "")

    async def _release(self, claim: Claim, start: Start) -> None:
        """What the body returned or raised comes first: neither a cancellation nor a silent server may take it."""
        limiter: Any = claim.limiter
        with suppress(asyncio.CancelledError):
            await asyncio.wait({in_background(limiter.release(start.answer.permit))}, timeout=RELEASE_PATIENCE)


def lead(decision: Defer) -> float:
    """Seconds by which it is worth coming early: before the turn of a bucket."""
    return LEAD if decision.answer is not None and decision.answer.ticket is None else 0.0
