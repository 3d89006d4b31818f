"""Functions, methods and objects that are called, decorated with a token bucket or several limits."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
from support.buckets import Kind, call, drained

from steindamm import (
    AsyncSemaphore,
    AsyncTokenBucket,
    MaxSleepExceededError,
    SyncTokenBucket,
    all_of,
)

HOUR = 3_600.0


async def test_a_decorated_function_starts_when_it_may_and_stays_what_it_was(buckets: Kind) -> None:
    bucket = buckets(capacity=2, refill_frequency=HOUR, max_sleep=1)

    def add(one: int, *, two: int) -> int:
        """Add."""
        return one + two

    async def add_later(one: int, *, two: int) -> int:
        """Add."""
        return one + two

    function = bucket(add_later if buckets.asynchronous else add)
    assert inspect.iscoroutinefunction(function) is buckets.asynchronous
    assert function.__doc__ == "Add."
    assert [await call(function, 1, two=2) for _ in range(2)] == [3, 3]
    with pytest.raises(MaxSleepExceededError):
        await call(function, 1, two=2)


async def test_a_function_may_be_decorated_with_a_cost(buckets: Kind) -> None:
    bucket = buckets(capacity=5, refill_frequency=HOUR)

    async def later() -> None:
        pass

    await call(bucket(4)(later if buckets.asynchronous else lambda: None))
    assert await drained(bucket) == 1


def test_a_method_may_be_decorated() -> None:
    bucket = SyncTokenBucket(name="method", capacity=1, refill_frequency=HOUR)

    class Client:
        @bucket
        def fetch(self, what: str) -> tuple[object, str]:
            return self, what

    client = Client()
    assert client.fetch("it") == (client, "it")


async def _coroutine() -> None:
    pass


async def _asynchronous_generator():
    yield


class _Awaited:
    async def __call__(self) -> str:
        return "awaited"


@pytest.mark.parametrize("function", [_coroutine, _asynchronous_generator, functools.partial(_coroutine), _Awaited()])
def test_a_sync_limiter_refuses_to_decorate_what_is_asynchronous_and_names_its_twin(function) -> None:
    with pytest.raises(TypeError, match="decorate it with an AsyncTokenBucket"):
        SyncTokenBucket(name="decorator")(function)


@pytest.mark.parametrize("function", [len, lambda: None, int, _Awaited])
def test_an_async_limiter_decorates_coroutine_functions_only_and_names_its_twin(function) -> None:
    with pytest.raises(TypeError, match="decorate it with a SyncTokenBucket"):
        AsyncTokenBucket(name="decorator")(function)


def test_an_asynchronous_generator_is_sent_to_no_other_limiter_which_refuses_it_as_well() -> None:
    with pytest.raises(TypeError, match="by a block inside it"):
        AsyncTokenBucket(name="decorator")(_asynchronous_generator)


@pytest.mark.parametrize("kind", [AsyncTokenBucket, AsyncSemaphore])
async def test_an_async_limiter_decorates_objects_whose_calls_are_awaited(kind: Any) -> None:
    limiter = kind(name="decorator")
    assert await limiter(_Awaited())() == "awaited"
    assert await all_of(limiter)(_Awaited())() == "awaited"
    assert (await limiter.state()).counters.granted == 2
