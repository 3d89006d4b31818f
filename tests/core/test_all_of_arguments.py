"""What `all_of` takes, and what it says of what it does not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from steindamm import AsyncTokenBucket, SyncAllOf, SyncSemaphore, SyncTokenBucket, all_of


def test_no_limiter_at_all() -> None:
    with pytest.raises(ValueError, match="takes 1 to 16 limiters, not 0"):
        all_of()


def test_too_many() -> None:
    with pytest.raises(ValueError, match="not 17"):
        all_of(*(SyncTokenBucket(f"number-{number}") for number in range(17)))


@pytest.mark.parametrize("settings", [{}, {"capacity": 9}])
def test_the_same_limiter_twice(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="'twice' is named twice: name it with a cost"):
        all_of(SyncTokenBucket("twice"), SyncTokenBucket("twice", **settings))


def test_a_bucket_and_a_semaphore_of_one_name_are_two_limiters() -> None:
    assert isinstance(all_of(SyncTokenBucket("one"), SyncSemaphore("one")), SyncAllOf)


def test_sync_and_async_ones() -> None:
    with pytest.raises(TypeError, match="sync limiters or async ones, not both"):
        all_of(SyncTokenBucket("sync"), AsyncTokenBucket("async"))


@pytest.mark.parametrize("given", [5, "api", None, SyncTokenBucket, (SyncTokenBucket("api"),), (5, 5), ()])
def test_what_is_no_limiter(given: Any) -> None:
    with pytest.raises(TypeError, match="a limiter, or a pair"):
        all_of(given)


def test_a_cost_for_a_semaphore() -> None:
    with pytest.raises(TypeError, match="'slots' takes no cost"):
        all_of((SyncSemaphore("slots"), 2))


@pytest.mark.parametrize("cost", [-1, float("nan"), 6, float("inf")])
def test_a_cost_that_can_never_be_paid(cost: float) -> None:
    with pytest.raises(ValueError, match=r"^cost must"):
        all_of((SyncTokenBucket("api"), cost))


def test_a_cost_that_is_none() -> None:
    with pytest.raises(TypeError, match="cost must be a number"):
        all_of((SyncTokenBucket("api"), None))


def test_a_cost_that_is_a_function() -> None:
    with pytest.raises(TypeError, match="cost must be a number"):
        all_of((SyncTokenBucket("api"), lambda: 5))


def test_a_cost_for_all() -> None:
    with pytest.raises(TypeError, match="name one with each"):
        all_of(SyncTokenBucket("api"))(5)


@pytest.mark.parametrize("max_sleep", [-1, float("nan"), "soon"])
def test_a_wait_that_is_none(max_sleep: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="max_sleep"):
        all_of(SyncTokenBucket("api"), max_sleep=max_sleep)


def test_limiters_in_memory_and_on_a_server() -> None:
    with pytest.raises(ValueError, match="'here' and 'there' one has a connection and one has none"):
        all_of(SyncTokenBucket("here"), SyncTokenBucket("there", connection="redis://localhost"))


@pytest.mark.parametrize(
    "other",
    [
        "redis://localhost:7000",
        "redis://elsewhere",
        "redis://localhost/1",
        "unix:///run/redis",
        "redis+cluster://localhost",
    ],
)
def test_limiters_on_different_servers(other: str) -> None:
    one = SyncTokenBucket("one", connection="redis://:secret@localhost")
    with pytest.raises(ValueError, match="'one' and 'two' are on different ones") as error:
        all_of(one, SyncTokenBucket("two", connection=other))
    assert "secret" not in str(error.value)


def test_ways_to_name_one_server_are_no_different_servers() -> None:
    ways = ["redis://", "redis://localhost", "redis://:secret@localhost:6379/0", "valkey://localhost", redis.Redis()]
    all_of(*(SyncTokenBucket(f"way-{number}", connection=way) for number, way in enumerate(ways)))


def watched(service: str, *hosts: str, database: int = 0) -> redis.asyncio.Redis:
    """A client of the server that sentinels on these hosts watch."""
    client: redis.asyncio.Redis = Sentinel([(host, 26_379) for host in hosts]).master_for(service, db=database)
    return client


async def test_ways_to_name_one_cluster_are_no_different_servers() -> None:
    ways = ["redis+cluster://a", "valkey+cluster://:secret@a:6379", RedisCluster("a"), RedisCluster("a", 6379)]
    all_of(*(AsyncTokenBucket(f"way-{number}", connection=way, group="g") for number, way in enumerate(ways)))


async def test_sentinels_of_one_service_of_which_one_is_named_by_both_are_no_different_servers() -> None:
    ways = [watched("ours", "a", "b", database=2), watched("ours", "b", "c", database=2)]
    all_of(*(AsyncTokenBucket(f"way-{number}", connection=way) for number, way in enumerate(ways)))


async def test_clusters_and_watched_servers_that_differ() -> None:
    connections = [
        RedisCluster("a"), RedisCluster("b"), RedisCluster("a", 7000), "redis://a", redis.asyncio.Redis(host="a"),
        watched("ours", "a"), watched("theirs", "a"), watched("ours", "c"), watched("ours", "a", database=1),
    ]  # fmt: skip
    buckets = [AsyncTokenBucket(f"number-{number}", connection=each) for number, each in enumerate(connections)]
    for one, other in combinations(buckets, 2):
        if (one.name, other.name) != ("number-3", "number-4"):
            with pytest.raises(ValueError, match="are on different ones"):
                all_of(one, other)
    all_of(buckets[3], buckets[4])


def test_the_shortest_wait_of_all_is_accepted() -> None:
    waits = [SyncTokenBucket(f"waits-{max_sleep}", max_sleep=max_sleep) for max_sleep in (20, 0, 7)]
    assert all_of(*waits).max_sleep == 7
    assert all_of(waits[1]).max_sleep == 0
