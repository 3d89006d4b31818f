"""Faults that other limiters have, each by its number: none may happen here. The semaphore's stand beside these."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
import redis.asyncio
from support.bucket_and_clock import Bucket
from support.buckets import NUMBERS, THREADS, FakeClock, Kind, call, drained
from support.semaphores import until
from support.servers import HOST, Cluster, Server
from support.spread import spread

from steindamm import AsyncTokenBucket, MaxSleepExceededError, SyncTokenBucket
from steindamm.backends.memory import Memory, MemoryBucket
from steindamm.rules.bucket import Request, Verdict, What
from steindamm.settings import BucketSettings

US = 1e6
HOUR = 3_600.0


# 1. A bucket of 100 an hour granted 300 in two minutes: its key expired before it was full again.


async def test_1_a_bucket_is_remembered_until_it_is_full_again_whatever_its_expiry(redis_buckets: Kind) -> None:
    bucket = redis_buckets(capacity=100, refill_frequency=36, expiry=0.05)
    assert await drained(bucket) == 100
    await asyncio.sleep(0.2)
    assert await drained(bucket) == 0
    ((key, admin),) = redis_buckets.keys(bucket.name).items()
    assert admin.ttl(key) == pytest.approx(HOUR, abs=60)


def test_1_in_memory_too() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    bucket = MemoryBucket(BucketSettings("slow", capacity=100, refill_frequency=36, expiry=60), memory)
    granted = 0
    for _ in range(122):
        clock.now += 1
        MemoryBucket(BucketSettings(f"other-{clock.now}"), memory).ask(Request(What.TAKE, 1.0))
        while bucket.ask(Request(What.TAKE, 1.0, 0.0)).verdict is Verdict.GRANTED:
            granted += 1
    assert granted == 100 + 3


# 2. One `with bucket(0)` turned the limiter off for good.


async def test_2_a_cost_of_0_turns_nothing_off(buckets: Kind) -> None:
    bucket = buckets(capacity=3, refill_frequency=HOUR)
    assert (await call(bucket(0).acquire)).cost == 0
    assert await drained(bucket) == 3
    assert (await call(bucket(0).acquire)).cost == 0
    assert await drained(bucket) == 0


# 3. bucket(5) and bucket(7), made first and entered later, took 8 tokens.


async def test_3_each_limiter_with_a_cost_of_its_own_takes_that(buckets: Kind) -> None:
    bucket = buckets(capacity=20, refill_frequency=HOUR)
    five, seven = bucket(5), bucket(7)
    await call(five.acquire)
    await call(seven.acquire)
    assert await drained(bucket) == 8


# 9. Ten cancelled waiters at one a second: the next one waited 9.8 s.


async def test_9_cancelled_waiters_leave_no_wait_behind(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=1, refill_frequency=60, max_sleep=0)
    await bucket.acquire()
    waiters = [asyncio.create_task(bucket.acquire()) for _ in range(10)]
    await until(lambda: len(bucket._backend.turns._sleepers) == 10)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert (await bucket.reserve()).delay <= 60


async def test_9_cancelled_one_by_one_in_any_order_too(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=1, refill_frequency=60, max_sleep=0)
    await bucket.acquire()
    waiters = [asyncio.create_task(bucket.acquire()) for _ in range(10)]
    await until(lambda: len(bucket._backend.turns._sleepers) == 10)
    for number in (4, 9, 0, 7, 1, 8, 2, 6, 3, 5):
        waiters[number].cancel()
        await asyncio.gather(waiters[number], return_exceptions=True)
    assert (await bucket.reserve()).delay <= 60


async def test_9_a_cancelled_waiter_with_a_stranger_behind_it_leaves_its_turn_to_the_next_that_comes(
    async_buckets: Kind,
) -> None:
    settings = {"capacity": 1, "refill_frequency": 60, "max_sleep": 0}
    bucket = async_buckets(**settings)
    await bucket.acquire()
    waiter = asyncio.create_task(bucket.acquire())
    await until(lambda: len(bucket._backend.turns._sleepers) == 1)
    stranger = await bucket.reserve()
    assert 60 < stranger.delay <= 120
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    newcomer = asyncio.create_task(bucket.acquire())
    await until(lambda: len(bucket._backend.turns._sleepers) == 1)
    ((sleeper,)) = bucket._backend.turns._sleepers
    assert sleeper.slept <= 60
    newcomer.cancel()
    await asyncio.gather(newcomer, return_exceptions=True)


# 10. A refill step restarted at "now": a bucket of 10/s that was drained every 1.9 steps gave half.


def test_10_a_bucket_that_is_drained_between_two_steps_loses_nothing(home) -> None:
    bucket = home(capacity=10, step=0.1)
    starts, now = 0, 10**12
    for _ in range(101):
        while bucket.decide(now, Request(What.TAKE, 1.0, 0.0)).verdict is Verdict.GRANTED:
            starts += 1
        now += 190_000
    assert starts == 10 + 190


# 11. A client's clock that is 5 s off: twice as many grants, or none.


@pytest.mark.parametrize("off_by", [5.0, -5.0])
async def test_11_a_clients_clock_does_not_count(
    redis_buckets: Kind, monkeypatch: pytest.MonkeyPatch, off_by: float
) -> None:
    bucket = redis_buckets(capacity=5, refill_frequency=HOUR, max_sleep=1)
    assert await drained(bucket(2)) == 2
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + off_by * HOUR)
    other = redis_buckets(bucket.name, capacity=5, refill_frequency=HOUR, max_sleep=1)
    assert await drained(other) == 1
    with pytest.raises(MaxSleepExceededError) as refusal:
        await call(other.acquire)
    assert refusal.value.retry_after == pytest.approx(HOUR, abs=60)


# 12. Four hundred limiters lay in one slot of the cluster.


@pytest.mark.parametrize("way", ["sync", "async"])
def test_12_three_hundred_limiters_lie_on_all_three_nodes(cluster: Cluster, way: str) -> None:
    spread(way, cluster.url, f"spread-{way}", 300)
    held = [len(list(node.admin.scan_iter(f"steindamm:{{spread-{way}-*", count=1000))) for node in cluster.nodes]
    assert sum(held) == 300
    assert min(held) > 60


# 13. Twenty waiters on a pool of ten connections hardly got on; a socket timeout below max_sleep was an error.


def test_13_more_threads_wait_than_the_pool_has_connections(valkey: Server) -> None:
    with redis.Redis(HOST, valkey.port, max_connections=2, socket_timeout=0.5) as client:
        bucket = SyncTokenBucket(name="pool-sync", capacity=1, refill_frequency=0.02, connection=client)
        begin = time.monotonic()
        permits = [THREADS.submit(bucket.acquire) for _ in range(51)]
        waited = sum(permit.result(20).waited > 0 for permit in permits)
    assert 0.99 < time.monotonic() - begin < 5
    assert waited > 25


async def test_13_more_tasks_wait_than_the_pool_has_connections(valkey: Server) -> None:
    async with redis.asyncio.Redis(host=HOST, port=valkey.port, max_connections=2, socket_timeout=0.5) as client:
        bucket = AsyncTokenBucket(name="pool-async", capacity=1, refill_frequency=0.02, connection=client)
        begin = time.monotonic()
        permits = await asyncio.gather(*(bucket.acquire() for _ in range(51)))
    assert 0.99 < time.monotonic() - begin < 5
    assert max(permit.waited for permit in permits) > 0.9


# 14. A capacity that was lowered on a live key stayed what it was.


async def test_14_a_lower_capacity_takes_effect_at_once(buckets: Kind) -> None:
    bucket = buckets(capacity=5, refill_frequency=HOUR)
    await call(bucket.acquire)
    lowered = buckets(bucket.name, capacity=2, refill_frequency=HOUR)
    assert await drained(lowered) == 2


async def test_14_a_higher_capacity_is_filled_by_refills(buckets: Kind) -> None:
    bucket = buckets(capacity=2, refill_frequency=HOUR)
    await call(bucket.acquire)
    raised = buckets(bucket.name, capacity=5, refill_frequency=HOUR)
    assert await drained(raised) == 1


# 15. A limiter used in a second `asyncio.run` failed; a clock set back an hour blocked for an hour.


@pytest.mark.parametrize("backend", ["local", "valkey", "cluster"])
def test_15_a_limiter_works_in_one_asyncio_run_after_another(request: pytest.FixtureRequest, backend: str) -> None:
    connection = None if backend == "local" else request.getfixturevalue(backend).url
    limiter = AsyncTokenBucket(
        name=f"loops-{next(NUMBERS)}", capacity=1, refill_frequency=0.02, max_sleep=5, connection=connection
    )

    async def three() -> list[float]:
        return [permit.waited for permit in await asyncio.gather(*(limiter.acquire() for _ in range(3)))]

    assert [len(asyncio.run(three())) for _ in range(3)] == [3, 3, 3]


def test_15_a_server_clock_set_back_an_hour_blocks_nobody_for_longer_than_a_step(home) -> None:
    bucket = home(capacity=2)
    now = 10**13
    for _ in range(3):
        bucket.decide(now, Request(What.TAKE, 1.0))
    now -= int(HOUR * US)
    assert bucket.decide(now, Request(What.TAKE, 1.0)).wait <= 2 * US
    now += int(5 * US)
    assert bucket.decide(now, Request(What.TAKE, 1.0, 0.0)).verdict is Verdict.GRANTED


def test_15_a_local_limiter_never_looks_at_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = SyncTokenBucket(name=f"wall-{next(NUMBERS)}", capacity=1, refill_frequency=0.05)
    bucket.acquire()
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() - HOUR)
    assert bucket.acquire().waited <= 0.05


# 16. A fork while threads used a limiter left the child hanging.

FORKING = Path(__file__).parents[1] / "support" / "forking.py"
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
"""What measures coverage holds a lock of its own for a moment at each thread's lines: a child may find it held."""


@pytest.mark.parametrize(
    ("backend", "way"), [("local", ""), ("valkey", "url"), ("valkey", "client"), ("cluster", "url")]
)
def test_16_a_child_forked_while_threads_use_a_limiter_can_use_it_too(
    request: pytest.FixtureRequest, backend: str, way: str
) -> None:
    connection = [way, request.getfixturevalue(backend).url] if way else []
    command = [sys.executable, "-W", "ignore", FORKING, str(next(NUMBERS)), *connection]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=UNMEASURED)
    assert (done.stdout.strip(), done.stderr) == ("0 of 25 children hang", "")


# 17. Half tokens counted as whole, `initial_tokens=0` gave a full bucket, a local refusal cost tokens.


async def test_17_half_a_token_is_no_token(buckets: Kind) -> None:
    bucket = buckets(capacity=2, refill_amount=0.5, refill_frequency=HOUR, initial_tokens=1.5)
    assert await drained(bucket) == 1
    assert await drained(bucket(0.5)) == 1


async def test_17_a_bucket_with_no_initial_tokens_is_empty(buckets: Kind) -> None:
    bucket = buckets(capacity=5, refill_frequency=HOUR, initial_tokens=0)
    assert await drained(bucket) == 0


async def test_17_a_refusal_costs_nothing(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=100, max_sleep=1)
    await call(bucket.acquire)
    for _ in range(5):
        with pytest.raises(MaxSleepExceededError) as refusal:
            await call(bucket.acquire)
        assert refusal.value.retry_after <= 100


# Others


@pytest.mark.parametrize(("capacity", "frequency"), [(1, 0.001), (0.5, 0.001), (2, 0.0004), (1, 1e-6)])
async def test_a_small_capacity_at_a_high_rate_is_a_limit_all_the_same(
    redis_buckets: Kind, capacity: float, frequency: float
) -> None:
    bucket = redis_buckets(
        capacity=capacity, refill_amount=capacity, refill_frequency=frequency, tokens_to_consume=capacity, max_sleep=0
    )
    count = round(0.2 / max(frequency, 0.001))
    begin = time.monotonic()
    for _ in range(count):
        await call(bucket.acquire)
    assert time.monotonic() - begin > (count - 2) * frequency
    assert redis_buckets.keys(bucket.name)


async def test_waiting_for_one_key_does_not_block_another(buckets: Kind) -> None:
    full, free = buckets(capacity=1, refill_frequency=0.5, max_sleep=0), buckets(capacity=10)
    await call(full.acquire)
    waiter = asyncio.create_task(call(full.acquire))
    await asyncio.sleep(0.02)
    for _ in range(10):
        assert (await call(free.acquire)).waited == 0
    assert not waiter.done()
    await waiter


def test_many_clients_at_once_never_pass_the_limit_together(valkey: Server) -> None:
    name = f"race-{next(NUMBERS)}"
    clients = [redis.Redis(HOST, valkey.port) for _ in range(16)]
    limiters = [
        SyncTokenBucket(name=name, capacity=100, refill_frequency=HOUR, connection=client) for client in clients
    ]
    permits = list(THREADS.map(SyncTokenBucket.try_acquire, limiters * 20))
    assert sum(permit is not None for permit in permits) == 100
    for client in clients:
        client.close()


async def test_a_large_acquire_does_not_starve_among_small_ones(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=10, refill_frequency=0.005, max_sleep=0)
    await bucket(10).acquire()
    stop = asyncio.Event()

    async def small() -> None:
        while not stop.is_set():
            await bucket.acquire()

    others = [asyncio.create_task(small()) for _ in range(5)]
    await asyncio.sleep(0.05)
    large = await bucket(10).acquire()
    stop.set()
    await asyncio.gather(*others)
    assert large.waited < 0.3


async def test_no_two_waiters_wake_at_once(buckets: Kind) -> None:
    bucket = buckets(capacity=1, refill_frequency=10, max_sleep=0)
    reservations = await asyncio.gather(*(call(bucket.reserve) for _ in range(6)))
    delays = sorted(reservation.delay for reservation in reservations)
    assert delays == pytest.approx([0, 10, 20, 30, 40, 50], abs=3)


async def test_a_cancelled_waiter_does_not_block_the_next(async_buckets: Kind) -> None:
    bucket = async_buckets(capacity=1, refill_frequency=0.1, max_sleep=0)
    await bucket.acquire()
    first, second = (asyncio.create_task(bucket.acquire()) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await asyncio.wait_for(second, 5)).waited <= 0.1


def test_at_the_edge_of_a_window_there_is_no_second_one() -> None:
    bucket = Bucket(capacity=10, amount=10, step=US, now=0.99 * US)
    before = bucket.drained()
    bucket.now = 1.01 * US
    assert before + bucket.drained() == 10
