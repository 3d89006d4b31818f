"""What redis-py raises, in the kinds that are told apart; it is imported where a limiter first needs it."""

from __future__ import annotations

from functools import cache
from typing import Any

from steindamm.errors import LimiterUnavailableError

UNREADABLE = TypeError, ValueError, ArithmeticError, LookupError, RecursionError
"""What a client's reader raises where the answer is none of the protocol's."""


def unavailable(name: str, error: Exception) -> LimiterUnavailableError:
    """Our error for one of the client's."""
    return LimiterUnavailableError(name, type(error).__name__)


@cache
def of_redis() -> Any:
    """redis-py's errors: that the server says no, that a connection broke, that an answer is late."""
    import redis.exceptions  # noqa: PLC0415

    return redis.exceptions


@cache
def failures() -> tuple[type[Exception], ...]:
    """What a client raises when it gets no answer, or none that counts."""
    return of_redis().RedisError, of_redis().RedisClusterException, OSError, *UNREADABLE


@cache
def async_failures() -> tuple[type[Exception], ...]:
    """The same for an async client; see `was_closed_meanwhile`."""
    return *failures(), AttributeError


def is_pool_empty(error: Exception) -> bool:
    """Whether a client failed because all connections of its pool are in use."""
    return type(error).__name__ == "MaxConnectionsError" or str(error).startswith("Too many connections")


def was_closed_meanwhile(error: Exception) -> bool:
    """Whether an async client found its connection closed, before it sent anything, by a task beside it.

    redis-py's tasks do so where one of them learns anew how a cluster is laid out. What is written to then is None, or
    asyncio's own transport that is closed.
    """
    return isinstance(error, (AttributeError, TypeError))
