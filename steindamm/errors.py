"""What a limiter raises. Every error survives pickling with its fields."""

from __future__ import annotations

from typing import Any


class SteindammError(Exception):
    """The base of all errors that steindamm raises on its own account.

    Example:
        >>> from steindamm import SteindammError, SyncTokenBucket
        >>> api = SyncTokenBucket("api, too slow", refill_frequency=60, initial_tokens=0, max_sleep=1)
        >>> try:
        ...     api.acquire()
        ... except SteindammError as error:
        ...     print(type(error).__name__)
        MaxSleepExceededError
    """


class MaxSleepExceededError(SteindammError):
    """The wait for a turn, or a slot, is longer than the caller accepts; nothing was consumed.

    Example:
        >>> from steindamm import MaxSleepExceededError
        >>> error = MaxSleepExceededError("api", retry_after=41.5, max_sleep=30.0)
        >>> error.retry_after
        41.5

    Parameters:
        name: The limiter that refused.
        retry_after: Seconds after which it is worth asking again; None where nobody can tell.
        max_sleep: The longest wait that the caller accepted, in seconds.
    """

    def __init__(self, name: str, retry_after: float | None = None, max_sleep: float | None = None) -> None:
        self.name = name
        self.retry_after = retry_after
        self.max_sleep = max_sleep
        super().__init__(name, retry_after, max_sleep)

    def __str__(self) -> str:
        wait = "an unknown time" if self.retry_after is None else f"{self.retry_after:.3f} s"
        accepted = "" if self.max_sleep is None else f", accepted are {self.max_sleep:g} s"
        return f"limiter {self.name!r}: the wait is {wait}{accepted}"


class NoTokensAvailableError(SteindammError):
    """A quota that never refills is spent: no wait would help.

    Example:
        >>> from steindamm import NoTokensAvailableError, SyncTokenBucket
        >>> trial = SyncTokenBucket("trial calls", capacity=1, refill_amount=0, refill_frequency=0)
        >>> with trial:
        ...     pass
        >>> try:
        ...     trial.acquire()
        ... except NoTokensAvailableError as error:
        ...     print(error)
        limiter 'trial calls': its tokens are spent, and it never refills

    Parameters:
        name: The limiter that refused.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"limiter {self.name!r}: its tokens are spent, and it never refills"


class CostAboveCapacityError(NoTokensAvailableError):
    """The cost is above the capacity that an override has given the limiter: no wait would help.

    Example:
        >>> from steindamm import CostAboveCapacityError, SyncTokenBucket
        >>> api = SyncTokenBucket("their api, made smaller", capacity=100)
        >>> api.override(capacity=10)
        >>> try:
        ...     api(50).acquire()
        ... except CostAboveCapacityError as error:
        ...     print(error.cost)
        50.0

    Parameters:
        name: The limiter that refused.
        cost: Tokens that were asked for.
    """

    def __init__(self, name: str, cost: float) -> None:
        super().__init__(name)
        self.cost = cost
        self.args = name, cost

    def __str__(self) -> str:
        return f"limiter {self.name!r}: a cost of {self.cost:g} is above its capacity, which was overridden"


class AlreadySettledError(SteindammError):
    """The cost of this permit has been settled before.

    Example:
        >>> from steindamm import AlreadySettledError, SyncTokenBucket
        >>> with SyncTokenBucket("model, settled twice", capacity=100)(10) as permit:
        ...     permit.settle(12)
        ...     try:
        ...         permit.settle(12)
        ...     except AlreadySettledError as error:
        ...         print(error.name)
        model, settled twice

    Parameters:
        name: The limiter that gave it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"limiter {self.name!r}: this permit's cost was settled before; that can be done once"


class Throttled(SteindammError):  # noqa: N818 - what the server did, not what went wrong
    """Raised by a job whose server said "not now": its limiter is closed for a while, and the job comes back.

    Example:
        >>> from steindamm import Throttled
        >>> Throttled(retry_after=2.5).retry_after
        2.5

    Parameters:
        retry_after: Seconds until the server is to be asked again; None where it did not say.
        limiter: Of several that limit the job, the one to close, or its name; by default all of its token buckets,
            or, where it has none, its semaphores.
    """

    def __init__(self, retry_after: float | None = None, *, limiter: Any = None) -> None:
        self.retry_after = retry_after
        self.limiter: str | None = getattr(limiter, "name", limiter)
        super().__init__(retry_after)

    def __str__(self) -> str:
        told: Any = self.retry_after
        if told is None:
            return "the server said: not now"
        seconds = f"{told:g}" if isinstance(told, (int, float)) else f"{told!r:.40}"
        return f"the server said: not now, in {seconds} s"


class LimiterUnavailableError(SteindammError):
    """The backend did not answer, so nobody knows whether the call may start.

    The error of the Redis client is its ``__cause__``. The message carries no address and no password.

    Example:
        >>> from steindamm import LimiterUnavailableError
        >>> print(LimiterUnavailableError("api", "TimeoutError"))
        limiter 'api': its backend is unavailable (TimeoutError)

    Parameters:
        name: The limiter that was asked.
        reason: The kind of failure, as the client's error class names it.
    """

    def __init__(self, name: str, reason: str = "no answer") -> None:
        self.name = name
        self.reason = reason
        super().__init__(name, reason)

    def __str__(self) -> str:
        return f"limiter {self.name!r}: its backend is unavailable ({self.reason})"


def wrong_kind(argument: str, wanted: str, value: Any) -> TypeError:
    """The error for an argument of the wrong type; it names the type, never the value (it may be a secret)."""
    return TypeError(f"{argument} must be {wanted}, not {type(value).__name__}")
