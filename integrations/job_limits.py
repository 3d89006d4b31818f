"""What a job is limited by: declared once for each task, and resolved for each job from its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from steindamm.async_semaphore import AsyncSemaphore
from steindamm.async_token_bucket import AsyncTokenBucket
from steindamm.checks import checked_seconds
from steindamm.errors import wrong_kind
from steindamm.semaphore import Semaphore
from steindamm.sync_semaphore import SyncSemaphore
from steindamm.sync_token_bucket import SyncTokenBucket
from steindamm.token_bucket import TokenBucket

Limiter = TokenBucket | Semaphore
SYNC = (SyncTokenBucket, SyncSemaphore)
ASYNC = (AsyncTokenBucket, AsyncSemaphore)
MAX_BOOKING = 3_600.0
"""Seconds ahead that a turn may be booked."""


class Claim(NamedTuple):
    """What one job asks for.

    Parameters:
        limiter: The limiter that it must pass.
        cost: Tokens; None for the limiter's own cost.
    """

    limiter: Limiter
    cost: float | None = None


@dataclass(frozen=True)
class JobLimit:
    """The limit of all jobs of one task, checked when the task is defined.

    Parameters:
        limiter: A limiter, or a function of the job's arguments that returns one (or None: this job is not
            limited), or None.
        cost: Tokens that a job takes, or a function of the job's arguments that returns them; by default what
            the limiter takes.
        max_sleep: The longest wait, in seconds, for which a job keeps its place in the worker.
        max_deferral: Seconds after its first deferral at which a job fails; None for never.
        kinds: The classes of limiters that the queue can use: `SYNC` or `ASYNC`.

    Raises:
        TypeError: The limiter is none, or of the wrong kind; a setting is no number.
        ValueError: A setting is out of its bounds, or a cost that the limiter can never pay.
    """

    limiter: Any = None
    cost: Any = None
    max_sleep: float = 0.0
    max_deferral: float | None = None
    kinds: tuple[type, type] = SYNC

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_sleep", checked_seconds("max_sleep", self.max_sleep))
        if self.max_deferral is not None:
            object.__setattr__(self, "max_deferral", checked_seconds("max_deferral", self.max_deferral))
        _check_plain("limiter", self.limiter)
        _check_plain("cost", self.cost)
        if is_function(self.limiter):
            if self.cost is not None and not is_function(self.cost):
                checked_seconds("cost", self.cost)
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

    def claim(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Claim | None:
        """What the job with these arguments asks for; None for a job that is not limited.

        Raises:
            Exception: Whatever the job's functions raise; a TypeError or ValueError where they return nonsense.
        """
        limiter = self.limiter
        if is_function(limiter):
            limiter = limiter(*args, **kwargs)
            if limiter is not None:
                self._checked(limiter, "a function that returns a limiter, or None")
        if limiter is None:
            return None
        cost = self.cost(*args, **kwargs) if is_function(self.cost) else self.cost
        return Claim(limiter, None if cost is None else _checked_cost(limiter, cost))

    def _checked(self, limiter: Any, wanted: str) -> Limiter:
        if isinstance(limiter, self.kinds):
            return cast("Limiter", limiter)
        if isinstance(limiter, SYNC + ASYNC):
            given = type(limiter).__name__
            twin = given.replace("Async", "Sync", 1) if given.startswith("Async") else given.replace("Sync", "Async", 1)
            raise TypeError(f"limiter must be a {twin} here, not its twin {given}")
        raise wrong_kind("limiter", wanted, limiter)


def is_function(value: Any) -> bool:
    """Whether a value is a function of the job's arguments; limiters can be called, too, but are none."""
    return callable(value) and not isinstance(value, (*SYNC, *ASYNC, type))


def _check_plain(setting: str, given: Any) -> None:
    if inspect.iscoroutinefunction(given):
        raise TypeError(f"{setting} must be a plain function: it is called, and not awaited")


def _checked_cost(limiter: Limiter, cost: Any) -> float:
    if isinstance(limiter, TokenBucket):
        return limiter.settings.checked_cost("cost", cost)
    raise TypeError("cost must be left out for a semaphore: a job takes one slot")
