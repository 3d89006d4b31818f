"""Several limits on a server whose answer comes late: after a hand-over, after a lease, or to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.buckets import NUMBERS, call
from support.gates import AsyncGatedClient, GatedClient
from support.semaphores import fresh_name, held, until
from support.servers import Server

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket, all_of
from steindamm.tickets import PROCESS

SHORT = 0.9
"""Seconds of a lease; what is not renewed is soon over."""
HOUR = 3_600.0


class Limits:
    """A bucket with three tokens and a semaphore, on a client with stops, and both at once."""

    def __init__(self, client: Any, **settings: Any) -> None:
        asynchronous = isinstance(client, AsyncGatedClient)
        bucket, semaphore = (AsyncTokenBucket, AsyncSemaphore) if asynchronous else (SyncTokenBucket, SyncSemaphore)
        self.client = client
        self.name = fresh_name()
        self.bucket = bucket(f"several-{next(NUMBERS)}", capacity=3, refill_frequency=HOUR, connection=client)
        self.semaphore = semaphore(self.name, capacity=1, connection=client, **settings)
        self.both: Any = all_of(self.bucket, self.semaphore)

    def acquire(self) -> asyncio.Task[Any]:
        return asyncio.create_task(call(self.both.acquire))

    async def tokens(self) -> float:
        return (await call(self.bucket.state)).tokens


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[Any]:
    client = (GatedClient if request.param == "sync" else AsyncGatedClient).from_url(valkey.url)
    yield client
    await call(client.close if request.param == "sync" else client.aclose)


def holder_of(limits: Limits, valkey: Server, **settings: Any) -> SyncSemaphore:
    """Another process's view of the semaphore."""
    return SyncSemaphore(limits.name, capacity=1, connection=valkey.url, **settings)


async def test_a_slot_may_be_handed_over_before_the_answer_that_there_is_none(client: Any, valkey: Server) -> None:
    limits = Limits(client)
    holder = holder_of(limits, valkey)
    permit = await call(holder.acquire)
    early = limits.acquire()
    await until(lambda: valkey.admin.pubsub_numsub(f"steindamm:{PROCESS.name}")[0][1] >= 1)
    await call(holder.release, permit)
    await call(limits.both.release, await early)
    permit = await call(holder.acquire)
    stop = client.stop_at(None, before=False)
    waiting = limits.acquire()
    await until(stop.reached.is_set)
    await call(holder.release, permit)
    await asyncio.sleep(0.05)
    stop.go.set()
    await call(limits.both.release, await asyncio.wait_for(waiting, 5))
    assert await held(holder) == 0


async def test_what_comes_after_the_lease_may_be_over_goes_back_and_is_asked_for_anew(client: Any) -> None:
    limits = Limits(client, expiry=SHORT)
    stop = client.stop_at(None, before=False)
    waiting = limits.acquire()
    await until(stop.reached.is_set)
    await asyncio.sleep(SHORT + 0.1)
    stop.go.set()
    permit = await asyncio.wait_for(waiting, 5)
    assert not permit.lost
    assert await limits.tokens() == 2
    await call(limits.both.release, permit)
    assert await held(limits.semaphore) == 0


async def test_a_place_in_line_is_kept_for_as_long_as_its_asker_waits(client: Any, valkey: Server) -> None:
    limits = Limits(client, expiry=SHORT)
    alone = holder_of(limits, valkey, expiry=SHORT)
    permit = await call(alone.acquire)
    line: list[tuple[Any, asyncio.Task[Any]]] = []
    for place, limiter in enumerate([alone, limits.both, alone], start=1):
        line.append((limiter, asyncio.create_task(call(limiter.acquire))))
        await until(lambda place=place: alone.state().waiters == place)
    await asyncio.sleep(3 * SHORT)
    await call(alone.release, permit)
    for place, (limiter, waiting) in enumerate(line):
        permit = await waiting
        assert not any(later.done() for _, later in line[place + 1 :])
        await call(limiter.release, permit)


async def test_who_waits_for_a_semaphore_that_is_closed_starts_when_it_opens(client: Any) -> None:
    limits = Limits(client)
    await call(limits.semaphore.close_for, 0.3)
    await call(limits.both.release, await asyncio.wait_for(limits.acquire(), 5))
