"""What a limiter is told once: frozen, and checked when it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime

from steindamm.checks import (
    LONGEST_TIME,
    checked_moment,
    checked_name,
    checked_number,
    checked_seconds,
    checked_slots,
    shown,
)
from steindamm.errors import wrong_kind

SHORTEST_STEP = 1e-6
"""A microsecond: what the backends' clocks tell apart."""
SHORTEST_LEASE = 0.1
"""Seconds; a third of it has to be enough for a renewal."""
FEWEST_TOKENS = 1e-6
MOST_TOKENS = 1e9
"""Above this a double no longer tells a millionth of a token apart."""


def checked_group(group: object) -> str | None:
    """What a limiter's keys are to lie together with."""
    return None if group is None else checked_name(group, "group")


def key_of(name: str, group: str | None) -> str:
    """What a limiter's keys have in common, and share with no other limiter's.

    The first braces hold what a cluster's slot hangs on. Names have no braces, so that a limiter of a group has the
    key of no other one.
    """
    return f"{{{name}}}" if group is None else f"{{{group}}}:{{{name}}}"


def _set(settings: object, **values: object) -> None:
    for field, value in values.items():
        object.__setattr__(settings, field, value)


@dataclass(frozen=True, slots=True)
class Adapt:
    """How a bucket's rate falls where the server that it guards refuses, and how it recovers.

    Each refusal takes a factor off the rate (but those that come while the bucket is closed for it change
    nothing), and time adds to it, up to the rate that is configured. So the rate finds out what the server allows,
    and goes on trying whether it allows more.

    Example:
        >>> from steindamm import Adapt, SyncTokenBucket
        >>> api = SyncTokenBucket(name="their api", refill_frequency=0.1, adapt=Adapt(recovery=300))

    Parameters:
        factor: What is left of the rate after a refusal, above 0 and below 1.
        least: The smallest share of the rate that is left after any number of them.
        recovery: Seconds in which it comes back by a whole rate; by default as long as 400 tokens take, and no less
            than a minute. The longer, the fewer calls are refused, and the slower it follows a server that has
            come to allow more.

    Raises:
        ValueError, TypeError: A setting is wrong; the message names it.
    """

    factor: float = 0.5
    least: float = 1 / 32
    recovery: float | None = None

    def __post_init__(self) -> None:
        factor = checked_number("factor", self.factor, above=0)
        if factor >= 1:
            raise ValueError(f"factor must be below 1, not {shown(factor)}")
        _set(
            self,
            factor=factor,
            least=checked_number("least", self.least, above=0, most=1),
            recovery=None if self.recovery is None else checked_seconds("recovery", self.recovery, above=0),
        )


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """A token bucket's settings; `steindamm.SyncTokenBucket` describes each."""

    name: str
    capacity: float = 5.0
    refill_frequency: float = 1.0
    refill_amount: float = 1.0
    initial_tokens: float | None = None
    max_sleep: float = 30.0
    expiry: float = 60.0
    tokens_to_consume: float = 1.0
    window_start_time: datetime | None = None
    adapt: Adapt | bool = False
    group: str | None = None

    def __post_init__(self) -> None:
        capacity = checked_number("capacity", self.capacity, least=FEWEST_TOKENS, most=MOST_TOKENS)
        frequency = checked_seconds("refill_frequency", self.refill_frequency)
        amount = checked_number("refill_amount", self.refill_amount, most=MOST_TOKENS)
        initial = capacity if self.initial_tokens is None else checked_number("initial_tokens", self.initial_tokens)
        if (frequency == 0) != (amount == 0):
            raise ValueError(
                "refill_amount and refill_frequency must both be above 0, or both be 0 for a quota that never refills"
            )
        if 0 < frequency < SHORTEST_STEP:
            raise ValueError(f"refill_frequency must be at least {SHORTEST_STEP} s, not {frequency:g}")
        if 0 < amount < FEWEST_TOKENS:
            raise ValueError(f"refill_amount must be at least {FEWEST_TOKENS}, not {amount:g}")
        if amount > capacity:
            raise ValueError(
                f"refill_amount must not exceed capacity ({shown(capacity)}), what does not fit is lost; "
                f"not {shown(amount)}"
            )
        if initial > capacity:
            raise ValueError(f"initial_tokens must not exceed capacity ({shown(capacity)}), not {shown(initial)}")
        _set(
            self,
            name=checked_name(self.name),
            capacity=capacity,
            refill_frequency=frequency,
            refill_amount=amount,
            initial_tokens=initial,
            max_sleep=checked_seconds("max_sleep", self.max_sleep),
            expiry=checked_seconds("expiry", self.expiry, above=0),
            tokens_to_consume=self.checked_cost("tokens_to_consume", self.tokens_to_consume),
            window_start_time=self._checked_window(),
            adapt=self._checked_adapt(),
            group=checked_group(self.group),
        )

    @property
    def key(self) -> str:
        """What its keys have in common."""
        return key_of(self.name, self.group)

    def checked_cost(self, argument: str, cost: float) -> float:
        """A cost that this bucket can ever pay."""
        number = checked_number(argument, cost)
        if number > self.capacity:
            raise ValueError(f"{argument} must not exceed capacity ({shown(self.capacity)}), not {shown(number)}")
        return number

    def overridden(self, **settings: float) -> BucketSettings:
        """These settings with others in their place, checked as they were."""
        wanted = replace(self, initial_tokens=None, tokens_to_consume=0.0, **settings)  # type: ignore[arg-type]
        if wanted.never_refills != self.never_refills:
            raise ValueError(
                "refill_amount and refill_frequency must stay 0 for a quota, and above 0 for what is none: "
                "close what is to let nobody start"
            )
        return wanted

    def _checked_window(self) -> datetime | None:
        start = self.window_start_time
        if start is None:
            return None
        moment = checked_moment("window_start_time", start)
        if self.refill_frequency == 0:
            raise ValueError("window_start_time must be None for a quota that never refills")
        if moment > time.time():
            raise ValueError("window_start_time must lie in the past")
        return start

    def _checked_adapt(self) -> Adapt | bool:
        if not isinstance(self.adapt, (bool, Adapt)):
            raise wrong_kind("adapt", "True, False or an Adapt", self.adapt)
        if self.adapt and (self.refill_frequency == 0 or self.window_start_time is not None):
            raise ValueError("adapt must be False for a quota, and for windows of the calendar: they have no rate")
        return Adapt() if self.adapt is True else self.adapt

    @property
    def spacing(self) -> float:
        """Seconds that one token takes."""
        return self.refill_frequency / self.refill_amount if self.refill_amount else 0.0

    @property
    def never_refills(self) -> bool:
        """Whether this is a quota."""
        return self.refill_frequency == 0


@dataclass(frozen=True, slots=True)
class SemaphoreSettings:
    """A semaphore's settings; `steindamm.SyncSemaphore` describes each."""

    name: str
    capacity: int = 5
    max_sleep: float = 30.0
    expiry: float = 60.0
    group: str | None = None

    def __post_init__(self) -> None:
        _set(
            self,
            name=checked_name(self.name),
            group=checked_group(self.group),
            capacity=checked_slots("capacity", self.capacity),
            max_sleep=checked_seconds("max_sleep", self.max_sleep),
            expiry=checked_number("expiry", self.expiry, least=SHORTEST_LEASE, most=LONGEST_TIME),
        )

    @property
    def key(self) -> str:
        """What its keys have in common."""
        return key_of(self.name, self.group)
