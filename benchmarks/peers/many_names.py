"""steindamm on one node and on a cluster, where names spread over the nodes."""

from __future__ import annotations

from itertools import count

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster

from benchmarks.peers.steindamm import NEVER_REFUSING, RATE
from benchmarks.support.use import Use
from steindamm import AsyncTokenBucket, SyncTokenBucket

NAMES = 50


def one_name(url: str, *, is_cluster: bool = False) -> Use:
    kind = redis.cluster.RedisCluster if is_cluster else redis.Redis
    return Use(RATE, limiter=SyncTokenBucket("api", connection=kind.from_url(url), **NEVER_REFUSING))


def async_many_names(url: str, *, is_cluster: bool = False) -> Use:
    """Each use is of the next name."""
    kind = redis.asyncio.cluster.RedisCluster if is_cluster else redis.asyncio.Redis
    connection = kind.from_url(url)
    limiters = [AsyncTokenBucket(f"api {number}", connection=connection, **NEVER_REFUSING) for number in range(NAMES)]
    numbers = count()
    return Use("async with limiters[next(numbers) % many]: {body}", limiters=limiters, numbers=numbers, many=NAMES)
