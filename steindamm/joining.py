"""Joins limiters into one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast, overload

from steindamm.async_all_of import AsyncAllOf, AsyncRedisAllOf
from steindamm.async_semaphore import AsyncSemaphore
from steindamm.async_token_bucket import AsyncTokenBucket
from steindamm.errors import wrong_kind
from steindamm.semaphore import Semaphore
from steindamm.several_limits import AllOf
from steindamm.sync_all_of import SyncAllOf, SyncRedisAllOf
from steindamm.sync_semaphore import SyncSemaphore
from steindamm.sync_token_bucket import SyncTokenBucket
from steindamm.token_bucket import TokenBucket

SyncLimiter = SyncTokenBucket | SyncSemaphore | SyncAllOf
AsyncLimiter = AsyncTokenBucket | AsyncSemaphore | AsyncAllOf
SYNC = (SyncTokenBucket, SyncSemaphore)
ASYNC = (AsyncTokenBucket, AsyncSemaphore)
MOST = 16
"""Limits at once: each costs the server time in every decision."""


@overload
def all_of(*limiters: SyncLimiter | tuple[SyncTokenBucket, float], max_sleep: float | None = None) -> SyncAllOf: ...


@overload
def all_of(*limiters: AsyncLimiter | tuple[AsyncTokenBucket, float], max_sleep: float | None = None) -> AsyncAllOf: ...


def all_of(*limiters: Any, max_sleep: float | None = None) -> SyncAllOf | AsyncAllOf:
    """A limiter that lets start what several limits let start: all of them grant, or none does.

    Token buckets and semaphores, in memory or on Redis; sync ones give a sync limiter, async ones an async one.
    It has what they have: ``with``, ``acquire``, ``try_acquire``, ``reserve``, ``release``; it decorates functions.

    Where one of the limits is short, the caller waits for that one, with a turn or a place in line there, and
    leaves the others alone meanwhile: what they have goes to those who wait for nothing else. So a customer whose
    jobs wait for the customer's own limit takes nothing from the limit that all customers share. A refusal takes
    nothing anywhere, and names the limit that refused. The order in which limits are named does not matter, and
    no two callers can block each other.

    Over Redis a decision is one call, where all keys are on one node. On a cluster, give the limiters a
    ``group`` in common; without one, each slot is asked by a call of its own.

    Example:
        >>> from steindamm import SyncSemaphore, SyncTokenBucket, all_of
        >>> customer = SyncTokenBucket.from_rate("10/s", name="customer 4711")
        >>> account = SyncTokenBucket("account", capacity=1000, refill_frequency=0.06)
        >>> at_once = SyncSemaphore("connections", capacity=5)
        >>> with all_of(customer, (account, 25), at_once):
        ...     print("called")
        called

    Parameters:
        limiters: The limits: limiters, or pairs of a token bucket and its cost in tokens. At most 16.
        max_sleep: The longest wait in seconds, 0 for any; by default the shortest that one of the limiters has.

    Raises:
        ValueError: None is named, one is named twice, or they are on different servers.
        TypeError: What is named is no limiter, or sync and async ones are mixed; a cost for a semaphore.
    """
    parts = [part for limiter in limiters for part in _parts(limiter)]
    if not 0 < len(parts) <= MOST:
        raise ValueError(f"all_of takes 1 to {MOST} limiters, not {len(parts)}")
    parts.sort(key=_key)
    _check_that_all_differ(parts)
    if all(isinstance(part, SYNC) for part in parts):
        _check_that_all_are_on_one_server(parts)
        return (SyncAllOf if parts[0].connection is None else SyncRedisAllOf)(parts, max_sleep)
    if all(isinstance(part, ASYNC) for part in parts):
        _check_that_all_are_on_one_server(parts)
        return (AsyncAllOf if parts[0].connection is None else AsyncRedisAllOf)(parts, max_sleep)
    raise TypeError("all_of takes sync limiters or async ones, not both")


def _parts(limiter: Any) -> Iterator[TokenBucket | Semaphore]:
    if isinstance(limiter, AllOf):
        yield from limiter.limiters
    elif isinstance(limiter, tuple):
        yield _with_cost(*limiter) if len(limiter) == 2 else _no_limiter(limiter)
    elif isinstance(limiter, (*SYNC, *ASYNC)):
        yield limiter
    else:
        _no_limiter(limiter)


def _with_cost(limiter: Any, cost: Any) -> TokenBucket:
    if isinstance(limiter, (SyncTokenBucket, AsyncTokenBucket)):
        if cost is None or callable(cost):
            raise wrong_kind("cost", "a number", cost)
        return cast("TokenBucket", limiter(cost))
    if isinstance(limiter, (Semaphore, AllOf)):
        raise TypeError(f"{limiter.name!r} takes no cost: only a token bucket does")
    _no_limiter(limiter)
    raise AssertionError


def _no_limiter(given: Any) -> Any:
    raise wrong_kind("each of all_of's limiters", "a limiter, or a pair of a token bucket and its cost", given)


def _key(limiter: TokenBucket | Semaphore) -> tuple[str, bool]:
    return limiter.settings.key, isinstance(limiter, Semaphore)


def _check_that_all_differ(limiters: list[Any]) -> None:
    for one, other in pairwise(limiters):
        if _key(one) == _key(other):
            raise ValueError(
                f"all_of takes each limiter once, and {one.name!r} is named twice: name it with a cost, as in (b, 2)"
            )


def _check_that_all_are_on_one_server(limiters: list[Any]) -> None:
    first = limiters[0]
    for other in limiters[1:]:
        if (first.connection is None) != (other.connection is None):
            raise ValueError(
                "all_of takes limiters that are all in memory or all on one server; "
                f"of {first.name!r} and {other.name!r} one has a connection and one has none"
            )
        if first.connection is not None and not _is_same_server(first.connection, other.connection):
            raise ValueError(
                f"all_of takes limiters on one server; {first.name!r} and {other.name!r} are on different ones, "
                "or name it in different ways: give them the same connection"
            )


def _is_same_server(one: Any, other: Any) -> bool:
    from steindamm.backends.redis.servers import is_same_server  # noqa: PLC0415

    return is_same_server(one, other)
