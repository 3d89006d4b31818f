"""What `SyncAllOf` and `AsyncAllOf` share: their limits, permits, answers and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, ParamSpec, TypeVar

from steindamm.answers import Answer
from steindamm.checks import checked_number, checked_seconds
from steindamm.entered import Blocks
from steindamm.errors import (
    CostAboveCapacityError,
    MaxSleepExceededError,
    NoTokensAvailableError,
    SteindammError,
    wrong_kind,
)
from steindamm.permits import Permit
from steindamm.rules.all_of import REFUSALS, Decision, Request, Verdict
from steindamm.rules.semaphore import Stay
from steindamm.semaphore import Semaphore
from steindamm.sleepers import SECOND
from steindamm.tickets import Ticket
from steindamm.undivided import Undivided
from steindamm.visits import Visit

P = ParamSpec("P")
R = TypeVar("R")

NOTHING_ASKED = Decision(Verdict.GRANTED, 0, 0.0, (), ())
"""The answer to one whose costs are all 0."""


class AllOfPermit(Permit):
    """Leave to start what several limits have let start.

    Example:
        >>> from steindamm import SyncSemaphore, SyncTokenBucket, all_of
        >>> with all_of(SyncTokenBucket("their api and"), SyncSemaphore("our writers")) as permit:
        ...     [each.name for each in permit.permits]
        ['our writers', 'their api and']

    Attributes:
        name: The names of the limits.
        cost: Tokens and slots taken in all.
        permits: The permit of each, in the order of `AllOf.limiters`.
        waited: Seconds between asking and the start.
    """

    __slots__ = ("permits", "visit")

    def __init__(self, name: str, permits: Sequence[Permit], visit: Visit) -> None:
        self.name = name
        self.cost = sum(permit.cost for permit in permits)
        self.waited = visit.waited
        self.permits = tuple(permits)
        self.visit = visit

    def void(self) -> bool:
        """Nothing comes of any of them; those that were settled were used, and keep their tokens."""
        settled = [(permit.cost, not permit.void()) for permit in self.permits]
        self.visit.keep([is_settled for cost, is_settled in settled if cost])
        return True

    @property
    def has_slots(self) -> bool:
        """Whether it holds any slot, which has to be given back."""
        return any(isinstance(permit, Ticket) for permit in self.permits)

    @property
    def lost(self) -> bool:
        """Whether the lease of any of its slots ran out because it could not be renewed."""
        return any(isinstance(permit, Ticket) and permit.lost for permit in self.permits)


class AllOf(Undivided):
    """The base of `SyncAllOf` and `AsyncAllOf`; `steindamm.all_of` makes them.

    Attributes:
        limiters: The limits, in the order that they have among themselves: the one in which they are named does
            not matter.
        max_sleep: The longest wait in seconds; 0 for any.
    """

    _backend: Any
    _who: ClassVar[Callable[[], Hashable]]

    def __init__(self, limiters: Sequence[Any], max_sleep: float | None = None) -> None:
        self.limiters = tuple(limiters)
        self.max_sleep = _shortest(limiters) if max_sleep is None else checked_seconds("max_sleep", max_sleep)
        self._asked = tuple(limiter for limiter in limiters if isinstance(limiter, Semaphore) or limiter.cost > 0)
        self._blocks: Blocks[AllOfPermit] = Blocks(type(self)._who)
        self._connect()

    def _connect(self) -> None:
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    @property
    def backend(self) -> Any:
        """What decides on its requests."""
        return self._backend

    @property
    def uses_without_backend(self) -> int:
        """How often this process did without the backend, see `on_unavailable`; in memory never."""
        return 0

    @property
    def turns(self) -> int:
        """How many turns a job that waits brings along, of which those that were not given are None."""
        return len(self._asked)

    @property
    def name(self) -> str:
        """The names of all its limits."""
        return " + ".join(limiter.name for limiter in self.limiters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.limiters))})"

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """``@limiter``: a function that starts when all limits let it."""
        if not callable(function):
            raise TypeError("several limits take no cost in common: name one with each, as in all_of(a, (b, 5))")
        return self._decorated(function)

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    def permit_of(self, answer: Answer) -> Permit | None:
        """The permit of an answer that let start; None of any other."""
        return answer.permit

    def _visit(self, wake: Callable[[], object] | None = None) -> Visit:
        return Visit(self._asked, self.max_sleep, wake)

    def _visit_of_job(self, turn: Any, job: str | None = None) -> Visit:
        if turn is None:
            return Visit(self._asked, job=job)
        if not isinstance(turn, (tuple, list)) or len(turn) != len(self._asked):
            raise ValueError("turn must be what an earlier answer of the same limits gave")
        turns = [0.0 if each is None else checked_number("turn", each) for each in turn]
        return Visit(self._asked, turns=turns, job=job)

    def _question_of_job(self, visit: Visit, accept: float, horizon: float, slack: float) -> Request:
        return visit.request(
            checked_seconds("accept", accept),
            checked_seconds("horizon", horizon),
            Stay.AWAY,
            checked_seconds("slack", slack),
        )

    def _reservation(self, visit: Visit) -> Request:
        return visit.request(self.max_sleep or math.inf, 0.0, Stay.NO)

    def _answer(self, visit: Visit, decision: Decision) -> Answer:
        verdict, which, wait, *_ = decision
        seconds, name = wait / SECOND, self._asked[which].name if self._asked else self.name
        turns = tuple(turn or None for turn in visit.turns)
        if verdict is Verdict.GRANTED:
            turns = tuple(
                None if isinstance(limiter, Semaphore) else turn
                for limiter, turn in zip(self._asked, turns, strict=True)
            )
            return Answer(seconds, permit=self._permit(visit), turn=turns, limiter=name)
        if verdict in REFUSALS:
            return Answer(seconds, limiter=name, error=self._refusal(decision) if wait == math.inf else None)
        return Answer(seconds, turn=turns, ticket=visit.tickets.get(which), limiter=name)

    def _permit(self, visit: Visit) -> AllOfPermit:
        places = dict(visit.places())
        waited = visit.waited
        permits = [places.get(limiter) or limiter.permit_for(limiter.cost, waited) for limiter in self.limiters]
        return AllOfPermit(self.name, permits, visit)

    def _checked(self, permit: Permit) -> AllOfPermit:
        if not isinstance(permit, AllOfPermit):
            raise wrong_kind("permit", "what acquire returned", permit)
        if permit.name != self.name:
            raise ValueError(f"permit must be of {self.name!r}, not of {permit.name!r}")
        return permit

    def _visit_of_answer(self, answer: Answer) -> Visit | None:
        if isinstance(answer.permit, AllOfPermit):
            return answer.permit.visit
        if not isinstance(answer.turn, tuple):
            return None
        visit = self._visit_of_job(answer.turn)
        if answer.ticket is not None:
            names = [limiter.name if isinstance(limiter, Semaphore) else None for limiter in self._asked]
            visit.tickets[names.index(answer.ticket.name)] = answer.ticket
        return visit

    def _refusal(self, decision: Decision) -> SteindammError:
        limiter = self._asked[decision.which]
        if decision.verdict is Verdict.TOO_MUCH:
            return CostAboveCapacityError(limiter.name, limiter.cost)
        if decision.wait == math.inf:
            return NoTokensAvailableError(limiter.name)
        return MaxSleepExceededError(limiter.name, decision.wait / SECOND, self.max_sleep)

    def _is_too_far(self, visit: Visit, decision: Decision) -> bool:
        """Whether a turn is further away than the caller waits: its bucket was closed since it was booked."""
        if isinstance(self._asked[decision.which], Semaphore):
            return False
        return decision.wait > visit.left * SECOND


def _shortest(limiters: Sequence[Any]) -> float:
    """The shortest of their longest waits, of which 0 stands for any."""
    return min((limiter.settings.max_sleep for limiter in limiters if limiter.settings.max_sleep), default=0.0)
