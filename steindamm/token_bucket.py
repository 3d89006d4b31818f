"""What the sync and the async token bucket share: settings, costs, requests, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, ParamSpec, Self, TypeVar, overload

from steindamm.answers import Answer
from steindamm.by_connection import ByConnection
from steindamm.changing import Changing, checked_closure, signed
from steindamm.checks import checked_number, checked_seconds
from steindamm.errors import (
    CostAboveCapacityError,
    LimiterUnavailableError,
    MaxSleepExceededError,
    NoTokensAvailableError,
    SteindammError,
)
from steindamm.outages import RAISE, checked_on_unavailable
from steindamm.permits import TokenPermit
from steindamm.rate import Rate
from steindamm.rules.bucket import ENDLESS, NEVER_BACK, Decision, Request, Verdict, What
from steindamm.rules.changes import Change, Kind
from steindamm.settings import Adapt, BucketSettings
from steindamm.sleepers import SECOND, Sleeper

P = ParamSpec("P")
R = TypeVar("R")
RECOVERY, LEAST_RECOVERY = 400, 60.0
"""A rate that fell comes back in the time of so many tokens, and in no fewer seconds."""

A_LITTLE = 1.0 * SECOND
"""Microseconds beyond `max_sleep` for which one who has slept until its turn waits for the pace."""


class TokenBucket(ByConnection, Changing):
    """The base of `SyncTokenBucket` and `AsyncTokenBucket`, which say how to use it."""

    _backend: Any

    def __init__(
        self,
        name: str,
        *,
        capacity: float = 5.0,
        refill_frequency: float = 1.0,
        refill_amount: float = 1.0,
        initial_tokens: float | None = None,
        max_sleep: float = 30.0,
        expiry: float = 60,
        tokens_to_consume: float = 1.0,
        window_start_time: datetime | None = None,
        adapt: Adapt | bool = False,
        group: str | None = None,
        on_unavailable: Any = RAISE,
        connection: Any = None,
    ) -> None:
        self.settings = BucketSettings(
            name,
            capacity,
            refill_frequency,
            refill_amount,
            initial_tokens,
            max_sleep,
            expiry,
            tokens_to_consume,
            window_start_time,
            adapt,
            group,
        )
        self._name = self.settings.name
        self._accept = self.settings.max_sleep * SECOND or ENDLESS
        self._set_cost(self.settings.tokens_to_consume)
        self.on_unavailable = checked_on_unavailable(on_unavailable, self._stand_in_kind())
        self.connection = connection
        self._connect(connection)

    @classmethod
    def create(cls, name: str, **settings: Any) -> Self:
        """The same as calling the class."""
        return cls(name, **settings)

    @classmethod
    def from_rate(cls, rate: str | Rate, name: str, *, capacity: float | None = None, **settings: Any) -> Self:
        """A bucket for a limit as people say it, refilled one token at a time.

        With its default capacity, and costs of 1, it never lets more than the rate's amount start in any window
        of the rate's period. A larger capacity lets that many start at once after a pause, and as many more
        in such a window.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> with SyncTokenBucket.from_rate("100/m", name="mail"):
            ...     pass

        Parameters:
            rate: Such as ``"100/m"``, ``"5/s"``, ``"1000/h"``, ``"100/15m"``, or a `Rate`.
            name: The limiter's name.
            capacity: Tokens that it holds; by default 1, or what one acquire takes.
            settings: As for the class.

        Raises:
            ValueError: The rate can't be read, or a setting is wrong.
            TypeError: The same for what is of the wrong kind.
        """
        spacing = Rate.parse(rate).spacing
        if capacity is None:
            capacity = max(1.0, checked_number("tokens_to_consume", settings.get("tokens_to_consume", 1.0)))
        amount = min(1.0, checked_number("capacity", capacity, above=0))
        return cls(name, capacity=capacity, refill_frequency=spacing * amount, refill_amount=amount, **settings)

    def _connect(self, connection: Any) -> None:
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    def _stand_in_kind(self) -> type[TokenBucket]:
        """What can be asked instead of it."""
        return TokenBucket

    @property
    def uses_without_backend(self) -> int:
        """How often this process did without the backend, see `on_unavailable`; in memory never."""
        return 0

    def lets_go(self, error: LimiterUnavailableError) -> bool:
        """Whether a cost stays unsettled where the backend does not answer, rather than that it is an error."""
        return False

    @property
    def name(self) -> str:
        """The name under which the limit is shared."""
        return self.settings.name

    @property
    def cost(self) -> float:
        """Tokens that one acquire takes."""
        return self._cost

    @property
    def backend(self) -> Any:
        """What decides on its requests."""
        return self._backend

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, cost={self._cost:g})"

    @overload
    def __call__(self, tokens_to_consume: float | None = None) -> Self: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    def __call__(self, tokens_to_consume: Any = None) -> Any:
        """``limiter(5)``: the same limiter with a cost of 5. ``@limiter``: a function that starts when it may.

        Parameters:
            tokens_to_consume: The cost of one acquire in tokens, or the function; None for the limiter as it is.

        Raises:
            ValueError: The cost is above the capacity, or below 0.
            TypeError: This is no number, and no function that can be decorated.
        """
        if tokens_to_consume is None:
            return self
        if callable(tokens_to_consume):
            return self._decorated(tokens_to_consume)
        costly = object.__new__(type(self))
        vars(costly).update(vars(self))
        costly._set_cost(self.settings.checked_cost("cost", tokens_to_consume))
        return costly

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    def _set_cost(self, cost: float) -> None:
        self._cost = cost
        self._take = Request(What.TAKE, cost, self._accept)
        self._reserve = Request(What.TAKE, cost, self._accept, NEVER_BACK)
        self._try = Request(What.TAKE, cost, 0.0)

    def _patience(self, slept: float) -> float:
        """Seconds that one who has slept for so many sleeps on, as a turn may have moved, and a little more."""
        return (max(0.0, self._accept - slept * SECOND) + A_LITTLE) / SECOND

    def _coming_back(self, sleeper: Sleeper, slept: float) -> Request:
        """The request of one whose turn has come, after so many seconds; the pace may let it wait a little more."""
        return Request(What.COME_BACK, self._cost, self._patience(slept) * SECOND, turn=sleeper.turn)

    def asking(self, cost: float | None, accept: float, horizon: float, turn: float | None) -> Request:
        """What its backend is asked on behalf of a job; the parameters are those of `ask`."""
        cost = self._cost if cost is None else self.settings.checked_cost("cost", cost)
        accept = checked_seconds("accept", accept) * SECOND
        horizon = checked_seconds("horizon", horizon) * SECOND
        if turn is None:
            return Request(What.TAKE, cost, accept, horizon)
        return Request(What.COME_BACK, cost, accept, horizon, checked_number("turn", turn))

    def answer(self, request: Request, decision: Decision) -> Answer:
        """What its backend's decision on such a request means for the job."""
        verdict, wait, turn, _ = decision
        if verdict is Verdict.GRANTED:
            return Answer(wait / SECOND, permit=self.permit_for(request.cost, wait / SECOND), turn=turn)
        if verdict is Verdict.TOO_MUCH:
            return Answer(math.inf, error=CostAboveCapacityError(self.name, request.cost))
        if verdict is Verdict.REFUSED:
            return Answer(wait / SECOND)
        return Answer(wait / SECOND, turn=turn, cost=request.cost)

    def _gift(self, answer: Answer) -> Request | None:
        if answer.turn is None or isinstance(answer.turn, tuple):
            return None
        if answer.permit is None:
            return Request(What.GIVE_BOOKING_BACK, answer.cost, turn=answer.turn)
        return Request(What.GIVE_BACK, answer.permit.cost, turn=answer.turn)

    def permit_for(self, cost: float, waited: float = 0.0) -> TokenPermit:
        """A permit for what was granted elsewhere: in another process, say, that asked on behalf of this one."""
        raise TypeError(f"{type(self).__name__} is no limiter by itself")

    def _backing_off(self, retry_after: float) -> Change:
        adapt = self.settings.adapt
        if not isinstance(adapt, Adapt):
            return self._closing_for(retry_after)
        wait = checked_closure("retry_after", retry_after)
        recovery = adapt.recovery or max(LEAST_RECOVERY, RECOVERY * self.settings.spacing)
        return Change(Kind.BACK_OFF, (wait * SECOND, adapt.factor, adapt.least, recovery * SECOND))

    def _overriding(self, by: str | None, **settings: float | None) -> Change:
        given = {argument: value for argument, value in settings.items() if value is not None}
        if not given:
            raise TypeError("override needs a setting: capacity, refill_amount or refill_frequency")
        wanted = self.settings.overridden(**given)
        note = signed(by, {argument: getattr(wanted, argument) for argument in settings})
        return Change(Kind.OVERRIDE, self._backend.numbers_for(wanted), note)

    def _refusal(self, decision: Decision) -> SteindammError:
        if decision.verdict is Verdict.TOO_MUCH:
            return CostAboveCapacityError(self.name, self._cost)
        if decision.wait == math.inf:
            return NoTokensAvailableError(self.name)
        return MaxSleepExceededError(self.name, decision.wait / SECOND, self.settings.max_sleep)
