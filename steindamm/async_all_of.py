"""Several limits at once, for asyncio tasks. Its twin for threads is `steindamm.sync_all_of`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from steindamm.answers import Answer
from steindamm.async_semaphore import AsyncSemaphore, comes, waker
from steindamm.async_stand_ins import NOBODY, AsyncOpen, AsyncReplaceable
from steindamm.backends.memory import MEMORY
from steindamm.backends.memory_all_of import AsyncMemoryAllOf
from steindamm.background import in_background, to_its_end
from steindamm.decorating import is_coroutine_function, refuse_generator
from steindamm.entered import this_task
from steindamm.outages import ALLOW, RAISE
from steindamm.permits import Permit
from steindamm.reservations import AsyncReservation
from steindamm.rules import semaphore
from steindamm.rules.all_of import REFUSALS, Decision, Request, Verdict
from steindamm.rules.semaphore import Stay
from steindamm.several_limits import NOTHING_ASKED, AllOf, AllOfPermit
from steindamm.sleepers import SECOND
from steindamm.stand_ins import (
    AllOfStandInPermit,
    AsyncStandInPermit,
    local_limits,
    permits_without,
    strictest,
)
from steindamm.state import SemaphoreState, TokenBucketState
from steindamm.turns import give_back_left_over_async
from steindamm.visits import AsyncBooked, Visit


class AsyncAllOf(AllOf):
    """Several limits, of which all grant or none does; `steindamm.all_of` makes it and tells how it behaves."""

    _who = staticmethod(this_task)

    def _connect(self) -> None:
        connection = self.limiters[0].connection
        if connection is None:
            backend = AsyncMemoryAllOf([limiter.settings for limiter in self._asked], MEMORY)
            self._here: Callable[[], Any] = lambda: backend
        else:
            from steindamm.backends.redis.several_slots import async_all_of  # noqa: PLC0415

            self._here = async_all_of(connection, self._asked).here

    @property
    def _backend(self) -> Any:
        return self._here()

    async def acquire(self) -> AllOfPermit:
        """Wait until all limits let it start, and return the permit; give it back with `release`.

        Raises:
            MaxSleepExceededError: One of them, which it names, can't let it start within `max_sleep`.
            NoTokensAvailableError: One of them is a quota that is spent.
            LimiterUnavailableError: Redis did not answer.
        """
        handed, backend = asyncio.Event(), self._backend
        visit = self._visit(waker(handed))
        try:
            while not visit.is_granted:
                handed.clear()
                await self._come(visit, await self._ask(visit, visit.patient_request()), handed)
            return self._permit(visit)
        except BaseException as error:
            await self._leave_after(error, visit, backend)
            raise

    async def try_acquire(self) -> AllOfPermit | None:
        """A permit if all limits let it start at once, else None. Never waits.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        visit = self._visit()
        decision = await self._ask_once(visit, visit.request(0.0, 0.0, Stay.NO))
        return self._permit(visit) if decision.verdict is Verdict.GRANTED else None

    async def reserve(self) -> AsyncReservation:
        """Take tokens for the next start that all limits have, and slots that are free. Never waits.

        The tokens are taken now, in all of them, although the start may be later: what waits for a while is better
        served by `acquire`.

        Raises:
            MaxSleepExceededError, NoTokensAvailableError, LimiterUnavailableError: As for `acquire`.
        """
        visit = self._visit()
        decision = await self._ask_once(visit, self._reservation(visit))
        if decision.verdict is not Verdict.GRANTED:
            raise self._refusal(decision)
        permit = self._permit(visit)
        return AsyncReservation(permit, decision.wait / SECOND, lambda: self._leave(visit))

    async def release(self, permit: Permit) -> None:
        """Give the slots back. Tokens that were used do not come back. A second call changes nothing.

        Parameters:
            permit: What `acquire`, `try_acquire` or a reservation gave.

        Raises:
            TypeError: This is no permit.
            ValueError: It is of other limits.
        """
        await self._end(self._checked(permit))

    async def ask(
        self,
        *,
        turn: Sequence[float | None] | None = None,
        accept: float = 0.0,
        horizon: float = 0.0,
        slack: float = 0.0,
        job: str | None = None,
    ) -> Answer:
        """Ask on behalf of a job, without waiting: start, come back, or ask again; see `Answer`.

        Parameters:
            turn: The turns that the job was told to come back with.
            accept: The longest wait for the start, in seconds.
            horizon: How far away, in seconds, a turn may be booked.
            slack: Seconds that the job may be late when it comes back before its place in a line is forgotten.
            job: The job's id, which people see in `state`.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        visit = self._visit_of_job(turn, job)
        request = self._question_of_job(visit, accept, horizon, slack)
        return self._answer(visit, await self._ask_once(visit, request))

    async def state(self) -> list[TokenBucketState | SemaphoreState]:
        """What can be seen of each of its limits now, in the order of `limiters`. Looking changes nothing.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        return [await limiter.state() for limiter in self.limiters]

    async def give_back(self, answer: Answer) -> None:
        """Return what an answer gave and nobody will use."""
        visit = self._visit_of_answer(answer)
        if visit is not None:
            await self._leave(visit)

    async def _ask_once(self, visit: Visit, request: Request) -> Decision:
        backend = self._backend
        try:
            return await self._ask(visit, request)
        except BaseException as error:
            await self._leave_after(error, visit, backend)
            raise

    async def _ask(self, visit: Visit, request: Request) -> Decision:
        decision = await self._backend.ask(request) if request.asks else NOTHING_ASKED
        visit.note(decision)
        return decision

    async def _come(self, visit: Visit, decision: Decision, handed: asyncio.Event) -> None:
        """Wait until it is worth asking again, or until the start."""
        if visit.is_granted:
            if decision.wait > 0:
                await asyncio.sleep(decision.wait / SECOND)
        elif decision.verdict in REFUSALS or self._is_too_far(visit, decision):
            raise self._refusal(decision)
        elif not decision.given[decision.which]:
            await asyncio.sleep(decision.wait / SECOND)
        elif isinstance(self._asked[decision.which], AsyncSemaphore):
            await self._wait_in_line(visit, decision, handed)
        else:
            await self._wait_for_turn(visit, decision)

    async def _wait_for_turn(self, visit: Visit, decision: Decision) -> None:
        which, limiter = decision.which, self._asked[decision.which]
        booked = visit.booked(decision)
        backend, sleeper = limiter._backend, AsyncBooked(booked, limiter.cost)
        turns = backend.turns
        turns.hear(booked.changed)
        visit.turns[which] = 0.0
        try:
            if turns.join(sleeper):
                in_background(give_back_left_over_async(turns, backend.ask))
            await sleeper.sleep_among(turns, backend.ask)
            turns.leave(sleeper)
        except asyncio.CancelledError:
            turns.let_go(sleeper)
            await asyncio.shield(in_background(give_back_left_over_async(turns, backend.ask)))
            raise
        except BaseException:
            turns.cancel(sleeper)
            raise
        visit.turns[which] = sleeper.turn

    async def _wait_in_line(self, visit: Visit, decision: Decision, handed: asyncio.Event) -> None:
        """A slot may come while it gives up: then it has it."""
        which = decision.which
        ticket = visit.tickets[which]
        if await comes(handed, visit.patience):
            return
        place = await self._asked[which]._backend.give_up(ticket)
        if place.standing is semaphore.Standing.OUT:
            raise self._refusal(decision._replace(wait=place.wait))

    async def _leave(self, visit: Visit) -> None:
        """Give back all that it has and will not use."""
        await self._give(visit.gift(used=False))

    async def _end(self, permit: AllOfPermit, *, used: bool = True) -> None:
        """Give back what a permit does not need any more."""
        await self._give(permit.visit.gift(used=used))

    async def _give(self, gift: Request | None) -> None:
        """A cancellation does not keep it."""
        if gift is not None:
            await to_its_end(self._backend.give_back(gift))

    async def _leave_after(self, error: BaseException, visit: Visit, backend: Any) -> None:
        """Leave whatever happened; where a coroutine is closed nobody can await it any more."""
        if not isinstance(error, GeneratorExit):
            await self._leave(visit)
        elif (gift := visit.gift(used=False)) is not None:
            backend.abandon(gift)

    async def __aenter__(self) -> AllOfPermit:
        return self._blocks.begin(await self.acquire())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the slots back, though nobody awaits it; tokens that were used do not come back."""
        permit = self._blocks.end()
        if kind is not GeneratorExit:
            await self._end(permit)
        elif (gift := permit.visit.gift(used=True)) is not None:
            self._backend.abandon(gift)

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        refuse_generator(function)
        if not is_coroutine_function(function):
            raise TypeError(f"{function!r} is no coroutine function: decorate it with sync limiters")

        @functools.wraps(function)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            async with self:
                return await function(*args, **kwargs)

        return limited


class AsyncRedisAllOf(AsyncReplaceable, AsyncAllOf):
    """Several limits on Redis, Valkey or Redis Cluster.

    Where Redis does not answer they raise, if one of them does; else those that have a local limiter are asked all at
    once, and the others let through.
    """

    def _connect(self) -> None:
        super()._connect()
        self.on_unavailable = strictest(self.limiters)

    async def release(self, permit: Permit) -> None:
        """Give the slots back to whoever gave them."""
        await self._end(self._checked(permit))

    async def give_back(self, answer: Answer) -> None:
        """Return what an answer gave to whoever gave it."""
        if isinstance(answer.permit, AllOfStandInPermit):
            await self._end(answer.permit, used=False)
        else:
            await super().give_back(answer)

    async def _end(self, permit: AllOfPermit, *, used: bool = True) -> None:
        if not isinstance(permit, AllOfStandInPermit):
            await super()._end(permit, used=used)
        elif permit.given is not None:
            await self._other()._end(permit.given, used=used)

    def _visit(self, wake: Callable[[], object] | None = None) -> Visit:
        visit = super()._visit(wake)
        if wake is not None and self.on_unavailable != RAISE:
            visit.lapsed = lambda _: wake()
        return visit

    def _other(self) -> Any:
        if self.on_unavailable == ALLOW:
            return AsyncOpen(lambda: self._own(None))
        return AsyncAllOf(local_limits(self.limiters), self.max_sleep)

    def _own(self, permit: Any) -> AllOfStandInPermit:
        if isinstance(permit, AllOfStandInPermit):
            return permit
        permits = permits_without(self.limiters, permit, AsyncStandInPermit, NOBODY)
        return AllOfStandInPermit(self.name, permits, permit)

    def _other_question(self, question: dict[str, Any]) -> dict[str, Any]:
        """Turns, and places in line, are those of Redis: nobody is given others meanwhile."""
        return {**question, "turn": None, "horizon": 0.0}

    async def _look(self) -> object:
        return [await limiter.backend.look() for limiter in self.limiters]

    @property
    def _outage_key(self) -> Any:
        return tuple(limiter._outage_key for limiter in self.limiters)

    def _used_without(self) -> None:
        super()._used_without()
        for limiter in self.limiters:
            limiter._used_without()
