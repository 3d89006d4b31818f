"""What redis-py raises, in the kinds that are told apart; it is imported where a limiter first needs it."""

from __future__ import annotations

from functools import cache

from steindamm.errors import LimiterUnavailableError

UNREADABLE = TypeError, ValueError, ArithmeticError, LookupError, RecursionError
"""What a client's reader raises where the answer is none of the protocol's."""


def unavailable(name: str, error: Exception) -> LimiterUnavailableError:
    """Our error for one of the client's."""
    return LimiterUnavailableError(name, type(error).__name__)


@cache
def failures() -> tuple[type[Exception], ...]:
    """What a client raises when it gets no answer, or none that counts."""
    from redis.exceptions import RedisClusterException, RedisError  # noqa: PLC0415

    return RedisError, RedisClusterException, OSError, *UNREADABLE


@cache
def async_failures() -> tuple[type[Exception], ...]:
    """The same for an async client; see `was_closed_meanwhile`."""
    return *failures(), AttributeError


@cache
def no_script() -> type[Exception]:
    """What a client raises where the server does not have the script."""
    from redis.exceptions import NoScriptError  # noqa: PLC0415

    return NoScriptError


@cache
def refused() -> type[Exception]:
    """What a client raises where the server has answered, and says no."""
    from redis.exceptions import ResponseError  # noqa: PLC0415

    return ResponseError


@cache
def broken() -> type[Exception]:
    """What a client raises where its connection broke."""
    from redis.exceptions import ConnectionError as Broken  # noqa: PLC0415

    return Broken


@cache
def late() -> type[Exception]:
    """What a client raises where an answer is late."""
    from redis.exceptions import TimeoutError as Late  # noqa: PLC0415

    return Late


def is_pool_empty(error: Exception) -> bool:
    """Whether a client failed because all connections of its pool are in use."""
    return type(error).__name__ == "MaxConnectionsError" or str(error).startswith("Too many connections")


def was_closed_meanwhile(error: Exception) -> bool:
    """Whether an async client found its connection closed, before it sent anything, by a task beside it.

    redis-py's tasks do so where one of them learns anew how a cluster is laid out. What is written to then is None, or
    asyncio's own transport that is closed.
    """
    return isinstance(error, (AttributeError, TypeError))
