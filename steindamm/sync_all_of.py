"""Several limits at once, for threads. Its twin for tasks is `steindamm.async_all_of`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from threading import get_ident
from types import TracebackType
from typing import Any

from steindamm.answers import Answer
from steindamm.backends.memory import MEMORY
from steindamm.backends.memory_all_of import MemoryAllOf
from steindamm.bell import Bell
from steindamm.decorating import is_asynchronous, refuse_generator
from steindamm.outages import ALLOW, RAISE
from steindamm.permits import Permit
from steindamm.reservations import SyncReservation
from steindamm.rules import semaphore
from steindamm.rules.all_of import REFUSALS, Decision, Request, Verdict
from steindamm.rules.semaphore import Stay
from steindamm.several_limits import NOTHING_ASKED, AllOf, AllOfPermit
from steindamm.sleepers import SECOND
from steindamm.stand_ins import (
    AllOfStandInPermit,
    SyncStandInPermit,
    local_limits,
    permits_without,
    strictest,
)
from steindamm.state import SemaphoreState, TokenBucketState
from steindamm.sync_semaphore import SyncSemaphore
from steindamm.sync_stand_ins import NOBODY, SyncOpen, SyncReplaceable
from steindamm.turns import give_back_left_over
from steindamm.visits import SyncBooked, Visit


class SyncAllOf(AllOf):
    """Several limits, of which all grant or none does; `steindamm.all_of` makes it and tells how it behaves."""

    _who = staticmethod(get_ident)

    def _connect(self) -> None:
        connection = self.limiters[0].connection
        if connection is None:
            self._backend: Any = MemoryAllOf([limiter.settings for limiter in self._asked], MEMORY)
        else:
            from steindamm.backends.redis.several_slots import sync_all_of  # noqa: PLC0415

            self._backend = sync_all_of(connection, self._asked)

    def acquire(self) -> AllOfPermit:
        """Wait until all limits let it start, and return the permit; give it back with `release`.

        Raises:
            MaxSleepExceededError: One of them, which it names, can't let it start within `max_sleep`.
            NoTokensAvailableError: One of them is a quota that is spent.
            LimiterUnavailableError: Redis did not answer.
        """
        handed = Bell()
        visit = self._visit(handed.ring)
        try:
            while not visit.is_granted:
                handed.clear()
                self._come(visit, self._ask(visit, visit.patient_request()), handed)
            return self._permit(visit)
        except BaseException:
            self._leave(visit)
            raise

    def try_acquire(self) -> AllOfPermit | None:
        """A permit if all limits let it start at once, else None. Never waits.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        visit = self._visit()
        decision = self._ask_once(visit, visit.request(0.0, 0.0, Stay.NO))
        return self._permit(visit) if decision.verdict is Verdict.GRANTED else None

    def reserve(self) -> SyncReservation:
        """Take tokens for the next start that all limits have, and slots that are free. Never waits.

        The tokens are taken now, in all of them, although the start may be later: what waits for a while is better
        served by `acquire`.

        Raises:
            MaxSleepExceededError, NoTokensAvailableError, LimiterUnavailableError: As for `acquire`.
        """
        visit = self._visit()
        decision = self._ask_once(visit, self._reservation(visit))
        if decision.verdict is not Verdict.GRANTED:
            raise self._refusal(decision)
        permit = self._permit(visit)
        return SyncReservation(permit, decision.wait / SECOND, lambda: self._leave(visit))

    def release(self, permit: Permit) -> None:
        """Give the slots back. Tokens that were used do not come back. A second call changes nothing.

        Parameters:
            permit: What `acquire`, `try_acquire` or a reservation gave.

        Raises:
            TypeError: This is no permit.
            ValueError: It is of other limits.
        """
        self._end(self._checked(permit))

    def ask(
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
        return self._answer(visit, self._ask_once(visit, self._question_of_job(visit, accept, horizon, slack)))

    def state(self) -> list[TokenBucketState | SemaphoreState]:
        """What can be seen of each of its limits now, in the order of `limiters`. Looking changes nothing.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        return [limiter.state() for limiter in self.limiters]

    def give_back(self, answer: Answer) -> None:
        """Return what an answer gave and nobody will use."""
        visit = self._visit_of_answer(answer)
        if visit is not None:
            self._leave(visit)

    def _ask_once(self, visit: Visit, request: Request) -> Decision:
        try:
            return self._ask(visit, request)
        except BaseException:
            self._leave(visit)
            raise

    def _ask(self, visit: Visit, request: Request) -> Decision:
        decision = self._backend.ask(request) if request.asks else NOTHING_ASKED
        visit.note(decision)
        return decision

    def _come(self, visit: Visit, decision: Decision, handed: Bell) -> None:
        """Wait until it is worth asking again, or until the start."""
        if visit.is_granted:
            if decision.wait > 0:
                time.sleep(decision.wait / SECOND)
        elif decision.verdict in REFUSALS or self._is_too_far(visit, decision):
            raise self._refusal(decision)
        elif not decision.given[decision.which]:
            time.sleep(decision.wait / SECOND)
        elif isinstance(self._asked[decision.which], SyncSemaphore):
            self._wait_in_line(visit, decision, handed)
        else:
            self._wait_for_turn(visit, decision)

    def _wait_for_turn(self, visit: Visit, decision: Decision) -> None:
        which, limiter = decision.which, self._asked[decision.which]
        booked = visit.booked(decision)
        backend, sleeper = limiter._backend, SyncBooked(booked, limiter.cost)
        turns = backend.turns
        turns.hear(booked.changed)
        visit.turns[which] = 0.0
        try:
            if turns.join(sleeper):
                give_back_left_over(turns, backend.ask)
            sleeper.sleep_among(turns, backend.ask)
            turns.leave(sleeper)
        except BaseException:
            turns.let_go(sleeper)
            give_back_left_over(turns, backend.ask)
            raise
        visit.turns[which] = sleeper.turn

    def _wait_in_line(self, visit: Visit, decision: Decision, handed: Bell) -> None:
        """A slot may come while it gives up: then it has it."""
        which = decision.which
        ticket = visit.tickets[which]
        if handed.wait(visit.patience):
            return
        place = self._asked[which]._backend.give_up(ticket)
        if place.standing is semaphore.Standing.OUT:
            raise self._refusal(decision._replace(wait=place.wait))

    def _leave(self, visit: Visit) -> None:
        """Give back all that it has and will not use."""
        self._give(visit.gift(used=False))

    def _end(self, permit: AllOfPermit, *, used: bool = True) -> None:
        """Give back what a permit does not need any more."""
        self._give(permit.visit.gift(used=used))

    def _give(self, gift: Request | None) -> None:
        if gift is not None:
            self._backend.give_back(gift)

    def __enter__(self) -> AllOfPermit:
        permit = self.acquire()
        try:
            return self._blocks.begin(permit)
        except BaseException:
            self._end(permit, used=False)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the slots back; tokens that were used do not come back."""
        permit = self._blocks.end()
        try:
            self._end(permit)
        except BaseException:
            self._end(permit)
            raise

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        refuse_generator(function)
        if is_asynchronous(function):
            raise TypeError(f"{function!r} is asynchronous: decorate it with async limiters")

        @functools.wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return limited


class SyncRedisAllOf(SyncReplaceable, SyncAllOf):
    """Several limits on Redis, Valkey or Redis Cluster.

    Where Redis does not answer they raise, if one of them does; else those that have a local limiter are asked all at
    once, and the others let through.
    """

    def _connect(self) -> None:
        super()._connect()
        self.on_unavailable = strictest(self.limiters)

    def release(self, permit: Permit) -> None:
        """Give the slots back to whoever gave them."""
        self._end(self._checked(permit))

    def give_back(self, answer: Answer) -> None:
        """Return what an answer gave to whoever gave it."""
        if isinstance(answer.permit, AllOfStandInPermit):
            self._end(answer.permit, used=False)
        else:
            super().give_back(answer)

    def _end(self, permit: AllOfPermit, *, used: bool = True) -> None:
        if not isinstance(permit, AllOfStandInPermit):
            super()._end(permit, used=used)
        elif permit.given is not None:
            self._other()._end(permit.given, used=used)

    def _visit(self, wake: Callable[[], object] | None = None) -> Visit:
        visit = super()._visit(wake)
        if wake is not None and self.on_unavailable != RAISE:
            visit.lapsed = lambda _: wake()
        return visit

    def _other(self) -> Any:
        if self.on_unavailable == ALLOW:
            return SyncOpen(lambda: self._own(None))
        return SyncAllOf(local_limits(self.limiters), self.max_sleep)

    def _own(self, permit: Any) -> AllOfStandInPermit:
        if isinstance(permit, AllOfStandInPermit):
            return permit
        permits = permits_without(self.limiters, permit, SyncStandInPermit, NOBODY)
        return AllOfStandInPermit(self.name, permits, permit)

    def _other_question(self, question: dict[str, Any]) -> dict[str, Any]:
        """Turns, and places in line, are those of Redis: nobody is given others meanwhile."""
        return {**question, "turn": None, "horizon": 0.0}

    def _look(self) -> object:
        return [limiter.backend.look() for limiter in self.limiters]

    @property
    def _outage_key(self) -> Any:
        return tuple(limiter._outage_key for limiter in self.limiters)

    def _used_without(self) -> None:
        super()._used_without()
        for limiter in self.limiters:
            limiter._used_without()
