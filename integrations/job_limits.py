"""What a job is limited by: declared once for each task, and resolved for each job from its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

from steindamm.async_all_of import AsyncAllOf
from steindamm.async_semaphore import AsyncSemaphore
from steindamm.async_token_bucket import AsyncTokenBucket
from steindamm.checks import checked_seconds
from steindamm.errors import MaxSleepExceededError, wrong_kind
from steindamm.integrations.throttling import ThrottleOn
from steindamm.joining import all_of
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOf
from steindamm.sync_all_of import SyncAllOf
from steindamm.sync_semaphore import SyncSemaphore
from steindamm.sync_token_bucket import SyncTokenBucket
from steindamm.token_bucket import TokenBucket

Limiter = TokenBucket | Semaphore | AllOf
SYNC = (SyncTokenBucket, SyncSemaphore, SyncAllOf)
ASYNC = (AsyncTokenBucket, AsyncSemaphore, AsyncAllOf)
MAX_BOOKING = 3_600.0
"""Seconds ahead that a turn may be booked."""


class Claim(NamedTuple):
    """What one job asks for.

    Parameters:
        limiter: The limiter that it must pass.
        cost: Tokens; None for the limiter's own cost.
        job_id: The job's id, for people.
    """

    limiter: Limiter
    cost: float | None = None
    job_id: str | None = None


@dataclass(frozen=True)
class JobLimit:
    """The limit of all jobs of one task, checked when the task is defined.

    Parameters:
        limiter: A limiter, or a list of several, or a function of the job's arguments that returns one or a list
            (or None: this job is not limited), or None. In a list, a pair of a token bucket and its cost (a number,
            or a function of the job's arguments) may stand in place of a bucket.
        cost: Tokens that a job takes, or a function of the job's arguments that returns them; by default what
            the limiter takes. Of several, each token bucket that is named without a cost takes them.
        max_sleep: The longest wait, in seconds, for which a job keeps its place in the worker.
        max_deferral: Seconds after its first deferral at which a job fails; None for never.
        throttle_on: The errors of its jobs that mean that a server said "not now": an error class, several, or a
            mapping of them to functions that read from an error for how many seconds; `Throttled` always does.
        kinds: The classes of limiters that the queue can use: `SYNC` or `ASYNC`.

    Raises:
        TypeError: The limiter is none, or of the wrong kind; a setting is no number.
        ValueError: A setting is out of its bounds, or a cost that the limiter can never pay.
    """

    limiter: Any = None
    cost: Any = None
    max_sleep: float = 0.0
    max_deferral: float | None = None
    throttle_on: Any = None
    kinds: tuple[type, ...] = SYNC

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_sleep", checked_seconds("max_sleep", self.max_sleep))
        if self.max_deferral is not None:
            object.__setattr__(self, "max_deferral", checked_seconds("max_deferral", self.max_deferral))
        object.__setattr__(self, "throttle_on", ThrottleOn.of(self.throttle_on))
        _check_plain("limiter", self.limiter)
        _check_plain("cost", self.cost)
        if is_function(self.limiter):
            if self.cost is not None and not is_function(self.cost):
                checked_seconds("cost", self.cost)
        elif isinstance(self.limiter, (list, tuple)):
            self._check_several(self.limiter)
        elif self.limiter is not None:
            limiter = self._checked(self.limiter, "a limiter, or a function of the job's arguments that returns one")
            if self.cost is not None and not is_function(self.cost):
                _checked_cost(limiter, self.cost)
        elif self.cost is not None:
            raise TypeError("cost needs a limiter that takes it")

    @property
    def is_open(self) -> bool:
        """Whether no job is ever limited."""
        return self.limiter is None

    @property
    def says_anything(self) -> bool:
        """Whether jobs are treated any differently for it."""
        return not self.is_open or len(self.throttle_on.readers) > 1

    @property
    def not_now(self) -> tuple[type[Exception], ...]:
        """The errors of a job's own code after which it may come back instead of failing, also several of them."""
        return MaxSleepExceededError, *self.throttle_on.kinds, ExceptionGroup

    def claim(self, args: Sequence[Any], kwargs: Mapping[str, Any], job_id: str | None = None) -> Claim | None:
        """What the job with these arguments asks for; None for a job that is not limited.

        Raises:
            Exception: Whatever the job's functions raise; a TypeError or ValueError where they return nonsense.
        """
        if self._of_all is not None:
            return Claim(*self._of_all, job_id)
        limiter = _for_job(self.limiter, args, kwargs)
        if limiter is None:
            return None
        cost = _for_job(self.cost, args, kwargs)
        if isinstance(limiter, (list, tuple)):
            return Claim(self._joined(limiter, cost, args, kwargs), job_id=job_id)
        self._checked(limiter, "a function that returns a limiter, or None, or a list of several limiters")
        return Claim(limiter, None if cost is None else _checked_cost(limiter, cost), job_id)

    @cached_property
    def _of_all(self) -> tuple[Limiter, float | None] | None:
        """The limiter and the cost of each job, where neither hangs on its arguments."""
        if not isinstance(self.limiter, self.kinds) or is_function(self.cost):
            return None
        limiter = cast("Limiter", self.limiter)
        return limiter, None if self.cost is None else _checked_cost(limiter, self.cost)

    def _check_several(self, limiters: Sequence[Any]) -> None:
        """Refuse what can't be meant; several whose costs are known are one limiter from now on."""
        costs = [each[1] for each in limiters if isinstance(each, tuple) and len(each) == 2]
        for cost in costs:
            _check_plain("cost", cost)
        if any(map(is_function, (*costs, self.cost))):
            named: list[Any] = [self._part(each)[0] for each in limiters]
            all_of(*named)
            return
        object.__setattr__(self, "limiter", self._joined(limiters, self.cost, (), {}))
        object.__setattr__(self, "cost", None)

    def _joined(self, limiters: Sequence[Any], cost: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Limiter:
        parts: list[Any] = []
        for limiter, own in map(self._part, limiters):
            taken = cost if own is None and isinstance(limiter, TokenBucket) else _for_job(own, args, kwargs)
            parts.append(limiter if taken is None else (limiter, taken))
        joined = all_of(*parts)
        return joined if len(joined.limiters) > 1 else cast("Limiter", joined.limiters[0])

    def _part(self, given: Any) -> tuple[Limiter, Any]:
        """A limiter of several, and its cost."""
        limiter, cost = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        return self._checked(limiter, "a limiter, or a pair of a token bucket and its cost"), cost

    def _checked(self, limiter: Any, wanted: str) -> Limiter:
        if isinstance(limiter, self.kinds):
            return cast("Limiter", limiter)
        for wanted_kind, twin in (*zip(SYNC, ASYNC, strict=True), *zip(ASYNC, SYNC, strict=True)):
            if isinstance(limiter, twin):
                raise TypeError(f"limiter must be {a(wanted_kind)} here, not its twin {twin.__name__}")
        raise wrong_kind("limiter", wanted, limiter)


def limits_of(limiter: Any) -> tuple[Any, ...]:
    """A limiter, or the several that it is made of."""
    parts: tuple[Any, ...] = getattr(limiter, "limiters", (limiter,))
    return parts


def a(kind: type) -> str:
    """A class's name with its article."""
    return f"{'an' if kind in ASYNC else 'a'} {kind.__name__}"


def is_function(value: Any) -> bool:
    """Whether a value is a function of the job's arguments; limiters can be called, too, but are none."""
    return callable(value) and not isinstance(value, (*SYNC, *ASYNC, type))


def _for_job(setting: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A setting as it is for a job with these arguments."""
    return setting(*args, **kwargs) if is_function(setting) else setting


def _check_plain(setting: str, given: Any) -> None:
    if inspect.iscoroutinefunction(given):
        raise TypeError(f"{setting} must be a plain function: it is called, and not awaited")


def _checked_cost(limiter: Limiter, cost: Any) -> float:
    if isinstance(limiter, TokenBucket):
        return limiter.settings.checked_cost("cost", cost)
    if isinstance(limiter, AllOf):
        raise TypeError("cost must be named with each of several limiters, as in all_of(a, (b, 5)), or with their list")
    raise TypeError("cost must be left out for a semaphore: a job takes one slot")
