"""Whoever has gone when the answer comes gives back what it was given, and takes nothing from those who stay."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.buckets import NUMBERS, THREADS, call
from support.gates import PATIENCE, AsyncGatedClient, GatedClient
from support.semaphores import until
from support.servers import Server

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket, all_of
from steindamm.state import TokenBucketState

HOUR = 3_600.0


def acquired(bucket: Any) -> Any:
    return bucket.acquire()


def asked_by_a_job(bucket: Any) -> Any:
    return bucket.ask(horizon=100 * HOUR)


WAYS = pytest.mark.parametrize("asks", [acquired, asked_by_a_job])


async def comes_to(bucket: Any, check: Callable[[TokenBucketState], bool]) -> None:
    """Wait for a state that comes soon."""
    async with asyncio.timeout(PATIENCE):
        while not check(await call(bucket.state)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# Tasks


@pytest.fixture
async def async_client(valkey: Server) -> AsyncIterator[AsyncGatedClient]:
    client = AsyncGatedClient.from_url(valkey.url)
    yield client
    await client.aclose()


async def bucket_of_tasks(client: AsyncGatedClient, **settings: Any) -> AsyncTokenBucket:
    """A bucket of which a token has been taken; the next comes in an hour."""
    settings = {"capacity": 1, "refill_frequency": HOUR, "max_sleep": 0, **settings}
    bucket = AsyncTokenBucket(f"gone-{next(NUMBERS)}", connection=client, **settings)
    await bucket.acquire()
    return bucket


async def gone_when_answered(client: AsyncGatedClient, asking: Any) -> None:
    """Cancel a task whose question the server has answered, before it hears of that."""
    stop = client.stop_at(None, before=False)
    task = asyncio.ensure_future(asking)
    await until(stop.reached.is_set)
    task.cancel()
    await asyncio.sleep(0)
    stop.go.set()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@WAYS
async def test_a_task_gives_its_turn_back(async_client: AsyncGatedClient, asks: Callable[[Any], Any]) -> None:
    bucket = await bucket_of_tasks(async_client)
    await gone_when_answered(async_client, asks(bucket))
    await comes_to(bucket, lambda state: state.line_length == 0)


@WAYS
async def test_a_task_gives_back_what_it_was_granted_at_once(
    async_client: AsyncGatedClient, asks: Callable[[Any], Any]
) -> None:
    bucket = await bucket_of_tasks(async_client, capacity=3)
    await gone_when_answered(async_client, asks(bucket))
    await comes_to(bucket, lambda state: state.tokens == 2)


async def test_a_task_that_was_refused_gives_nothing_back(async_client: AsyncGatedClient) -> None:
    bucket = await bucket_of_tasks(async_client, capacity=3, max_sleep=0.001)
    await gone_when_answered(async_client, bucket(3).acquire())
    await asyncio.sleep(0.02)
    assert (await bucket.state()).tokens == 2


async def test_a_task_gives_back_what_it_was_given_of_several_limits(async_client: AsyncGatedClient) -> None:
    bucket = await bucket_of_tasks(async_client, capacity=3)
    semaphore = AsyncSemaphore(f"gone-{next(NUMBERS)}", capacity=3, connection=async_client)
    limits = all_of(bucket, semaphore)
    await limits.release(await limits.acquire())
    await gone_when_answered(async_client, limits.acquire())
    await comes_to(bucket, lambda state: state.tokens == 1)
    assert (await semaphore.state()).held == 0


# Threads


CLIENTS: list[GatedClient] = []


@pytest.fixture(autouse=True)
def _clients_are_closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


class Interruption(BaseException):
    """What a signal's handler, or a time limit, raises in a thread."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A signal interrupts the thread of the test."""

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


def soon(condition: Callable[[], bool]) -> None:
    """Wait, on a thread, for what must become true soon."""
    asyncio.run(until(condition))


def interrupt_main_thread() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)


def gone_when_answered_together(client: GatedClient, limiter: Any, asks: Callable[[Any], Any]) -> None:
    """Interrupt this thread, whose question another's call has put, when the server has answered it."""
    gathered = limiter._backend._sharing._gathered
    under_way = client.stop_at(None, before=False)
    others = [THREADS.submit(limiter.acquire)]
    soon(under_way.reached.is_set)
    others.append(THREADS.submit(limiter.acquire))
    soon(lambda: len(gathered) == 1)
    gone = threading.Event()

    def interrupt_me() -> None:
        soon(lambda: len(gathered) == 2)
        together = client.stop_at(None, before=False)
        under_way.go.set()
        soon(together.reached.is_set)
        interrupt_main_thread()
        soon(lambda: gone.is_set() or len(gathered) == 1)
        together.go.set()

    interrupting = THREADS.submit(interrupt_me)
    with pytest.raises(Interruption):
        asks(limiter)
    gone.set()
    for thread in [interrupting, *others]:
        thread.result(PATIENCE)


@pytest.mark.usefixtures("interruptible")
class TestAThread:
    @WAYS
    def test_gives_its_turn_back(self, valkey: Server, asks: Callable[[Any], Any]) -> None:
        client, bucket = bucket_of_threads(valkey, capacity=3)
        gone_when_answered_together(client, bucket, asks)
        assert bucket.state().line_length == 0

    @WAYS
    def test_gives_back_what_it_was_granted_at_once(self, valkey: Server, asks: Callable[[Any], Any]) -> None:
        client, bucket = bucket_of_threads(valkey, capacity=5)
        gone_when_answered_together(client, bucket, asks)
        assert bucket.state().tokens == 2

    def test_that_was_refused_gives_nothing_back(self, valkey: Server) -> None:
        client, bucket = bucket_of_threads(valkey, capacity=5, max_sleep=0.001)
        gone_when_answered_together(client, bucket, lambda bucket: bucket(3).acquire())
        assert bucket.state().tokens == 2

    def test_gives_back_what_it_was_given_of_several_limits(self, valkey: Server) -> None:
        client, bucket = bucket_of_threads(valkey, capacity=5)
        semaphore = SyncSemaphore(f"gone-{next(NUMBERS)}", capacity=3, connection=client)
        limits = all_of(bucket, semaphore)
        gone_when_answered_together(client, limits, acquired)
        assert bucket.state().tokens == 2
        assert semaphore.state().held == 2

    @pytest.mark.parametrize("is_alone", [True, False])
    def test_as_it_gives_a_slot_back_gives_it_back_all_the_same(self, valkey: Server, is_alone: bool) -> None:
        client, bucket = bucket_of_threads(valkey, capacity=5)
        semaphore = SyncSemaphore(f"gone-{next(NUMBERS)}", capacity=3, connection=client)
        limiter: Any = semaphore if is_alone else all_of(bucket, semaphore)
        permit = limiter.acquire()
        stop = client.stop_at(None, before=True)

        def interrupt_me() -> None:
            soon(stop.reached.is_set)
            interrupt_main_thread()

        interrupting = THREADS.submit(interrupt_me)
        with pytest.raises(Interruption):
            limiter.release(permit)
        interrupting.result(PATIENCE)
        soon(lambda: semaphore.state().held == 0)


def bucket_of_threads(server: Server, **settings: Any) -> tuple[GatedClient, SyncTokenBucket]:
    """A bucket of which a token has been taken; the next comes in an hour."""
    client = GatedClient.from_url(server.url)
    CLIENTS.append(client)
    settings = {"refill_frequency": HOUR, "max_sleep": 0, **settings}
    bucket = SyncTokenBucket(f"gone-{next(NUMBERS)}", connection=client, **settings)
    bucket.acquire()
    return client, bucket
