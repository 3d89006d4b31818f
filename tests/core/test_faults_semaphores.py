"""Faults that other semaphores have, by their numbers: none may happen here."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
import redis
import redis.asyncio
from support.buckets import call
from support.holder import Holder
from support.semaphores import Kind, fresh_name, held, until
from support.servers import Cluster, Server

from steindamm import AsyncSemaphore, MaxSleepExceededError, SyncSemaphore
from steindamm.backends import memory


async def test_4_killed_holders_do_not_keep_their_slots_for_as_long_as_others_use_the_semaphore(
    valkey: Server,
) -> None:
    name, expiry = fresh_name(), 1.0
    others = SyncSemaphore(name=name, connection=valkey.url, capacity=3, expiry=expiry, max_sleep=0)
    with Holder(valkey.url) as first, Holder(valkey.url, asynchronous=True) as second:
        for holder in (first, second):
            holder.acquires(name, expiry, 3)
            assert holder.says() == "holds"
            holder.signal(signal.SIGKILL)
        began_at = time.monotonic()
        while await held(others):
            await call(others.release, await call(others.acquire))
            assert time.monotonic() - began_at < 10


async def test_5_holders_that_outlive_their_expiry_are_joined_by_nobody(valkey: Server, cluster: Cluster) -> None:
    """In every kind at once."""

    async def hold(kind: Any, url: str) -> None:
        semaphore = kind(name=fresh_name(), connection=url, capacity=5, expiry=2.0, max_sleep=0.2)
        permits = [await call(semaphore.acquire) for _ in range(5)]
        until_then = time.monotonic() + 5.0
        while time.monotonic() < until_then:
            with pytest.raises(MaxSleepExceededError):
                await call(semaphore.acquire)
        for permit in permits:
            assert not permit.lost
            await call(semaphore.release, permit)
        assert await held(semaphore) == 0

    kinds = product([SyncSemaphore, AsyncSemaphore], [valkey.url, cluster.url])
    await asyncio.gather(*(hold(*kind) for kind in kinds))


async def test_6_cancelled_waiters_take_no_slot_with_them(async_semaphores: Kind) -> None:
    semaphore = async_semaphores(capacity=3, max_sleep=0)

    async def work() -> None:
        async with semaphore:
            await asyncio.sleep(0.001)

    for round_ in range(10):
        tasks = [asyncio.create_task(work()) for _ in range(30)]
        await asyncio.sleep(0.0005 * round_)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert await held(semaphore) == 0


async def test_7_and_8_one_who_is_refused_has_no_slot_and_one_who_is_let_in_has_one(semaphores: Kind) -> None:
    """Slots are freed in the very moment at which those who wait for them give up."""
    semaphore = semaphores(capacity=2, max_sleep=0.02)
    inside, most, refused = 0, 0, 0

    async def work() -> None:
        nonlocal inside, most, refused
        try:
            permit = await call(semaphore.acquire)
        except MaxSleepExceededError:
            refused += 1
            return
        inside, most = inside + 1, max(most, inside + 1)
        await asyncio.sleep(0.02)
        inside -= 1
        await call(semaphore.release, permit)

    for _ in range(5):
        await asyncio.gather(*(work() for _ in range(12)))
    assert refused > 0
    assert most == 2
    assert await held(semaphore) == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_12_three_hundred_semaphores_lie_on_all_three_nodes(cluster: Cluster, asynchronous: bool) -> None:
    kind = Kind(asynchronous, cluster.url, [node.admin for node in cluster.nodes])
    prefix = fresh_name()
    semaphores = [kind(f"{prefix}-{number}", capacity=1, expiry=5) for number in range(300)]
    permits = [await call(semaphore.acquire) for semaphore in semaphores]
    on_each = [
        len(list(node.admin.scan_iter(f"steindamm:{{{prefix}-*}}:semaphore", count=5000))) for node in cluster.nodes
    ]
    assert sum(on_each) == 300
    assert min(on_each) > 50
    for semaphore, permit in zip(semaphores, permits, strict=True):
        await call(semaphore.release, permit)


def test_13_twenty_threads_wait_on_a_pool_of_ten_connections(valkey: Server) -> None:
    with redis.Redis.from_url(valkey.url, max_connections=10) as client:
        semaphore = SyncSemaphore(name=fresh_name(), connection=client, capacity=2, max_sleep=0)
        granted = counted_for(semaphore, threads=20, seconds=1.0)
    assert granted > 20


def counted_for(semaphore: SyncSemaphore, threads: int, seconds: float) -> int:
    """How many slots so many threads get in that time."""
    granted, stop = [0] * threads, threading.Event()

    def use(number: int) -> None:
        while not stop.is_set():
            with semaphore:
                granted[number] += 1

    running = [threading.Thread(target=use, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in running:
        thread.join(20)
        assert not thread.is_alive()
    assert min(granted) > 0
    return sum(granted)


async def test_13_twenty_tasks_wait_on_a_pool_of_ten_connections(valkey: Server) -> None:
    client = redis.asyncio.Redis.from_url(valkey.url, max_connections=10)
    semaphore = AsyncSemaphore(name=fresh_name(), connection=client, capacity=2, max_sleep=0)
    granted = [0] * 20

    async def use(number: int) -> None:
        while True:
            async with semaphore:
                granted[number] += 1

    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.gather(*(use(number) for number in range(20)))
    assert sum(granted) > 20
    assert min(granted) > 0
    await client.aclose()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_13_a_pool_of_one_connection_will_do(valkey: Server, asynchronous: bool) -> None:
    module: Any = redis.asyncio if asynchronous else redis
    client = module.Redis.from_url(valkey.url, max_connections=1)
    kind = AsyncSemaphore if asynchronous else SyncSemaphore
    semaphore = kind(name=fresh_name(), connection=client, capacity=1, max_sleep=0)

    async def use() -> None:
        await call(semaphore.release, await call(semaphore.acquire))

    await asyncio.wait_for(asyncio.gather(*(use() for _ in range(10))), 20)
    await call(client.aclose if asynchronous else client.close)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_13_a_socket_timeout_below_max_sleep_is_no_error(valkey: Server, asynchronous: bool) -> None:
    kind = Kind(asynchronous, f"{valkey.url}?socket_timeout=0.8", [valkey.admin])
    semaphore = kind(capacity=1, max_sleep=20)
    permit = await call(semaphore.acquire)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    await call(semaphore.release, permit)
    await call(semaphore.release, await waiting)


async def test_14_a_capacity_lowered_on_a_live_semaphore_holds(semaphores: Kind) -> None:
    name = fresh_name()
    before, after = semaphores(name, capacity=5), semaphores(name, capacity=2)
    permits = [await call(before.acquire) for _ in range(5)]
    for permit in permits[:3]:
        assert await call(after.try_acquire) is None
        await call(before.release, permit)
    assert await call(after.try_acquire) is None
    await call(before.release, permits[3])
    permits[3] = await call(after.try_acquire)
    assert permits[3]
    assert await call(after.try_acquire) is None
    for permit in permits[3:]:
        await call(after.release, permit)
    assert await held(after) == 0


@pytest.mark.parametrize("backend", ["local", "valkey", "cluster"])
def test_15_a_semaphore_works_in_one_asyncio_run_after_another(request: pytest.FixtureRequest, backend: str) -> None:
    url = None if backend == "local" else request.getfixturevalue(backend).url
    semaphore = AsyncSemaphore(name=fresh_name(), connection=url, capacity=1, max_sleep=10)

    async def main() -> None:
        async def use() -> None:
            async with semaphore:
                await asyncio.sleep(0.001)

        await asyncio.gather(*(use() for _ in range(5)))

    for _ in range(3):
        asyncio.run(main())


def test_15_a_local_semaphore_never_looks_at_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a clock that is set blocks nobody; the server's is dealt with by the rules."""

    def fail() -> float:
        raise AssertionError("the wall clock")

    monkeypatch.setattr(time, "time", fail)
    semaphore = SyncSemaphore(name=fresh_name(), capacity=1, max_sleep=0.01)
    with semaphore, pytest.raises(MaxSleepExceededError):
        semaphore.acquire()


def test_15_a_local_semaphore_outlives_a_loop_that_ended_with_waiters_in_line() -> None:
    semaphore = AsyncSemaphore(name=fresh_name(), capacity=1, max_sleep=0)

    async def main() -> Any:
        permit = await semaphore.acquire()
        waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
        await asyncio.sleep(0.01)
        return permit, waiting

    loop = asyncio.new_event_loop()
    permit, waiting = loop.run_until_complete(main())
    loop.close()
    for task in waiting:
        task._log_destroy_pending = False

    async def go_on() -> None:
        await semaphore.release(permit)
        async with asyncio.timeout(5):
            await semaphore.release(await semaphore.acquire())

    asyncio.run(go_on())


async def test_a_slot_leaked_by_one_is_not_kept_alive_by_others(valkey: Server) -> None:
    """Each lease has an end of its own, and the key of all has one as well."""
    semaphore = SyncSemaphore(name=fresh_name(), connection=valkey.url, capacity=2, expiry=0.5, max_sleep=0)
    leaked = await call(semaphore.acquire)
    semaphore.backend.link.watch.remove(leaked)
    began_at = time.monotonic()
    while await held(semaphore):
        await call(semaphore.release, await call(semaphore.acquire))
        assert time.monotonic() - began_at < 10
    assert leaked.lost


async def test_a_cancelled_waiter_does_not_block_the_next(async_semaphores: Kind) -> None:
    semaphore = async_semaphores(capacity=1, max_sleep=0)
    permit = await semaphore.acquire()
    first, second = (asyncio.create_task(semaphore.acquire()) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.wait({first})
    await semaphore.release(permit)
    await semaphore.release(await asyncio.wait_for(second, 5))


async def test_waiting_for_one_key_does_not_block_another(semaphores: Kind) -> None:
    busy, free = semaphores(capacity=1, max_sleep=0), semaphores(capacity=1)
    permit = await call(busy.acquire)
    waiting = asyncio.create_task(call(busy.acquire))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await call(free.release, await call(free.acquire))
    await call(busy.release, permit)
    await call(busy.release, await waiting)


async def test_two_processes_never_pass_at_once(valkey: Server) -> None:
    """No looking first and taking then: every decision is one script."""
    name = fresh_name()
    inside, most = valkey.admin, 0
    semaphores = [Kind(way, valkey.url, [])(name, capacity=3, max_sleep=0) for way in (False, True)]

    async def use(semaphore: Any) -> None:
        nonlocal most
        for _ in range(10):
            permit = await call(semaphore.acquire)
            most = max(most, inside.incr(f"inside-{name}"))
            inside.decr(f"inside-{name}")
            await call(semaphore.release, permit)

    await asyncio.gather(*(use(semaphore) for semaphore in semaphores * 10))
    valkey.admin.delete(f"inside-{name}")
    assert most <= 3


def test_a_semaphore_that_nobody_uses_takes_no_memory() -> None:
    for number in range(2_000):
        with SyncSemaphore(name=f"once-{number}"):
            pass
    memory.MEMORY.sweep_at = 0.0
    deadline = time.monotonic() + 10
    while len(memory.MEMORY.semaphores.by_name) > 100:
        memory.MEMORY.sweep_at = 0.0
        with SyncSemaphore(name="another"):
            pass
        assert time.monotonic() < deadline


async def test_no_two_waiters_are_woken_for_one_slot(semaphores: Kind) -> None:
    semaphore, woken = semaphores(capacity=1), []
    first = await call(semaphore.ask)
    answers = [await call(semaphore.ask, wake=lambda n=number: woken.append(n)) for number in range(5)]
    for number, previous in enumerate([first, *answers]):
        await call(semaphore.give_back, previous)
        await until(lambda: len(woken) >= min(number + 1, 5))  # noqa: B023
        await asyncio.sleep(0.01)
        assert woken == list(range(min(number + 1, 5)))
