"""A limiter's copy is the limiter, and it can't be pickled."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from support.semaphores import fresh_name
from support.servers import Server

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket, all_of

KINDS = [SyncTokenBucket, AsyncTokenBucket, SyncSemaphore, AsyncSemaphore]


@pytest.fixture(params=["in memory", "on a server"])
def limiters(request: pytest.FixtureRequest, valkey: Server) -> list[Any]:
    connection = None if request.param == "in memory" else valkey.url
    limiters: list[Any] = [kind(fresh_name(), capacity=3, connection=connection) for kind in KINDS]
    bucket, _, semaphore, _ = limiters
    return [*limiters, bucket(2), all_of(bucket, semaphore)]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_limiter_itself(limiters: list[Any], copied: Any) -> None:
    for limiter in limiters:
        assert copied(limiter) is limiter


def test_it_can_not_be_pickled(limiters: list[Any]) -> None:
    for limiter in limiters:
        with pytest.raises(TypeError, match=f"{type(limiter).__name__} can't be pickled.* make it in each process"):
            pickle.dumps(limiter)


def test_another_cost_is_another_limiter_of_the_same_tokens(limiters: list[Any]) -> None:
    bucket = limiters[0]
    costly = bucket(2)
    assert (bucket.cost, costly.cost) == (1, 2)
    costly.acquire()
    assert bucket.try_acquire() is not None
    assert bucket.try_acquire() is None
