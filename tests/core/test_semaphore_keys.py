"""What a semaphore leaves in Redis: little, for as long as it means something, where nobody else's name reaches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
from support.buckets import call
from support.semaphores import Kind, fresh_name, held, keys_of, until
from support.servers import Server, valkey_binary

from steindamm import SyncSemaphore

SHORT = 0.5


async def test_its_keys_hang_on_its_name_alone(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores(capacity=1, max_sleep=0)
    permit = await call(semaphore.acquire)
    waiting = asyncio.create_task(call(semaphore.acquire))
    away = await call(semaphore.ask)
    await until(lambda: len(redis_semaphores.keys(semaphore.name)) >= 5)
    assert set(redis_semaphores.keys(semaphore.name)) <= {key.encode() for key in keys_of(semaphore.name)}
    await call(semaphore.give_back, away)
    await call(semaphore.release, permit)
    await call(semaphore.release, await waiting)


@pytest.mark.parametrize("other", [":leases", "x:semaphore", "*", "?", "a b", "'\"", "\\"])
async def test_no_name_reaches_another_semaphores_keys(redis_semaphores: Kind, other: str) -> None:
    name = fresh_name()
    semaphore, stranger = redis_semaphores(name, capacity=1), redis_semaphores(f"{name}{other}", capacity=1)
    permit = await call(semaphore.acquire)
    await call(stranger.release, await call(stranger.acquire))
    assert await held(semaphore) == 1
    await call(semaphore.release, permit)


async def test_no_key_lives_for_ever_whatever_was_done(redis_semaphores: Kind) -> None:
    """Not even when a slot is taken again just after it was given back, and its holder dies."""
    semaphore = redis_semaphores(capacity=2, max_sleep=0.05)
    for _ in range(3):
        await call(semaphore.release, await call(semaphore.acquire))
    permits = [await call(semaphore.acquire) for _ in range(2)]
    await call(semaphore.ask, slack=30)
    with pytest.raises(Exception, match="the wait is"):
        await call(semaphore.acquire)
    await call(semaphore.release, permits[0])
    await call(semaphore.acquire)
    assert len(redis_semaphores.keys(semaphore.name)) == 4
    for admin in redis_semaphores.admins:
        for key in admin.scan_iter(f"steindamm:{{{semaphore.name}}}:*"):
            assert 0 < admin.ttl(key) <= 200


async def test_an_idle_semaphore_leaves_nothing_behind(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores(capacity=1, expiry=SHORT, max_sleep=0.05)
    permit = await call(semaphore.acquire)
    with pytest.raises(Exception, match="the wait is"):
        await call(semaphore.acquire)
    await call(semaphore.release, permit)
    await until(lambda: redis_semaphores.keys(semaphore.name) == [])


async def test_the_counters_ride_along(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores(capacity=1, max_sleep=5)
    permit = await call(semaphore.acquire)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await until(lambda: redis_semaphores.state(semaphore.name)["listening"] == 1)
    await call(semaphore.try_acquire)
    await call(semaphore.give_back, await call(semaphore.ask))
    await asyncio.sleep(0.05)
    await call(semaphore.release, permit)
    await call(semaphore.release, await waiting)
    state = redis_semaphores.state(semaphore.name)
    assert (state["granted"], state["refused"], state["deferred"]) == (2, 1, 1)
    assert 50_000 <= state["waited"] < 5_000_000
    assert (state["held"], state["waiting"]) == (0, 0)


def test_an_acquire_and_a_release_are_two_commands(tmp_path: Path) -> None:
    with Server(valkey_binary(), tmp_path) as server, redis.Redis.from_url(server.url) as client:
        semaphore = SyncSemaphore(name=fresh_name(), connection=client)
        with semaphore:
            pass
        server.admin.config_resetstat()
        for _ in range(10):
            with semaphore:
                pass
        commands = server.admin.info("commandstats")
        inside = {"cmdstat_time", "cmdstat_get", "cmdstat_set", "cmdstat_zadd", "cmdstat_zrem", "cmdstat_pexpire"}
        asked = {name: stats["calls"] for name, stats in commands.items() if name not in inside}
        assert asked.pop("cmdstat_config|resetstat") == 1
        assert asked == {"cmdstat_evalsha": 20}


async def test_it_takes_little_room(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores(capacity=1_000)
    permits = await asyncio.gather(*(call(semaphore.acquire) for _ in range(5)))
    few = size_of(redis_semaphores, semaphore.name)
    permits += await asyncio.gather(*(call(semaphore.acquire) for _ in range(95)))
    assert few <= 600
    assert size_of(redis_semaphores, semaphore.name) - few <= 95 * 48
    for permit in permits:
        await call(semaphore.release, permit)


def size_of(kind: Kind, name: str) -> int:
    found = 0
    for admin in kind.admins:
        for key in admin.scan_iter(f"steindamm:{{{name}}}:*"):
            found += admin.memory_usage(key) or 0
    return found


def test_redis_itself_will_do(redis_url: str) -> None:
    semaphore = SyncSemaphore(name=fresh_name(), connection=redis_url, capacity=1, expiry=SHORT)
    with semaphore as permit:
        assert semaphore.try_acquire() is None
        assert not permit.lost
    assert semaphore.try_acquire()
