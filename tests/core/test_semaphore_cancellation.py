"""Whoever is cancelled or interrupted, at whatever point, leaves no slot held and nobody waiting in the line."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import redis
from support.cancelling import cancelled_at_each_step
from support.semaphores import Kind, fresh_name, held, keys_of, until
from support.servers import Server

from steindamm import AsyncSemaphore, SlotPermit, SyncSemaphore
from steindamm.backends.redis.semaphore import ONCE_MORE


def waiters(kind: Kind, name: str) -> int:
    if kind.local:
        return 0
    return int(kind.state(name)["waiting"])


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
class TestATaskCancelledAtAnyAwait:
    async def test_of_an_acquire_of_a_free_slot(self, async_semaphores: Kind, again: bool) -> None:
        semaphore = async_semaphores(capacity=1)

        async def nothing_is_left() -> None:
            await settled(async_semaphores, semaphore, again=again)

        async def acquire() -> None:
            await semaphore.release(await semaphore.acquire())

        await semaphore.release(await semaphore.acquire())
        steps = await cancelled_at_each_step(acquire, nothing_is_left, again=again)
        assert steps > (0 if not async_semaphores.local else -1)

    async def test_of_an_acquire_that_waits(self, async_semaphores: Kind, again: bool) -> None:
        semaphore = async_semaphores(capacity=1, max_sleep=0.02)
        permit = await semaphore.acquire()

        async def only_the_holder_is_left() -> None:
            await settled(async_semaphores, semaphore, holders=1, again=again)

        async def refused() -> None:
            with pytest.raises(Exception, match="the wait is"):
                await semaphore.acquire()

        steps = await cancelled_at_each_step(refused, only_the_holder_is_left, again=again)
        assert steps > 0
        await semaphore.release(permit)

    @pytest.mark.parametrize("method", ["try_acquire", "reserve", "ask"])
    async def test_of_what_never_waits(self, async_semaphores: Kind, method: str, again: bool) -> None:
        semaphore = async_semaphores(capacity=1)

        async def nothing_is_left() -> None:
            await settled(async_semaphores, semaphore, again=again)

        async def ask() -> None:
            given = await getattr(semaphore, method)()
            await semaphore.release(getattr(given, "permit", given))

        await cancelled_at_each_step(ask, nothing_is_left, again=again)

    async def test_of_a_block(self, async_semaphores: Kind, again: bool) -> None:
        semaphore = async_semaphores(capacity=1)

        async def nothing_is_left() -> None:
            await settled(async_semaphores, semaphore, again=again)

        async def block() -> None:
            async with semaphore:
                await asyncio.sleep(0)

        assert await cancelled_at_each_step(block, nothing_is_left, again=again) > 0

    async def test_in_the_moment_of_its_hand_over(self, async_semaphores: Kind, again: bool) -> None:
        """The slot that it was just handed goes to the next in line."""
        semaphore = async_semaphores(capacity=1, max_sleep=10)
        for steps in range(12):
            permit = await semaphore.acquire()
            first = asyncio.create_task(semaphore.acquire())
            await until(lambda: in_line(async_semaphores, semaphore) == 1)
            second = asyncio.create_task(semaphore.acquire())
            await until(lambda: in_line(async_semaphores, semaphore) == 2)
            release = asyncio.create_task(semaphore.release(permit))
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
            if again:
                await asyncio.sleep(0)
                first.cancel()
            await release
            await asyncio.wait({first}, timeout=5)
            if not first.cancelled():
                await semaphore.release(first.result())
            await semaphore.release(await asyncio.wait_for(second, 5))
        await settled(async_semaphores, semaphore, again=again)


def in_line(kind: Kind, semaphore: Any) -> int:
    if kind.local:
        states = semaphore.backend._semaphore._states
        return len(states[semaphore.name].listening)
    return int(kind.state(semaphore.name)["listening"])


async def settled(kind: Kind, semaphore: Any, *, again: bool, holders: int = 0) -> None:
    """Nothing is left at once; one who is cancelled a second time does not wait for that."""
    if again:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and (  # noqa: ASYNC110
            await held(semaphore) != holders or waiters(kind, semaphore.name)
        ):
            await asyncio.sleep(0.005)
    assert await held(semaphore) == holders
    assert waiters(kind, semaphore.name) == 0


class TestCoroutinesThatAreClosed:
    """Nobody can await any more where a coroutine is closed: what it held comes back in the background."""

    @pytest.mark.parametrize("waits", [False, True])
    async def test_leave_nothing(self, async_semaphores: Kind, waits: bool) -> None:
        semaphore = async_semaphores(capacity=1, max_sleep=0)
        permit = await semaphore.acquire() if waits else None
        coroutine = semaphore.acquire()
        if waits or not async_semaphores.local:
            coroutine.send(None)
        coroutine.close()
        if permit:
            await semaphore.release(permit)
        if not async_semaphores.local:
            await asyncio.sleep(ONCE_MORE / 2)  # what the coroutine asked has come to the server, however late
        await settled(async_semaphores, semaphore, again=True)


class TestTimeouts:
    async def test_around_a_wait(self, async_semaphores: Kind) -> None:
        semaphore = async_semaphores(capacity=1, max_sleep=0)
        permit = await semaphore.acquire()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), semaphore:
                    pass
        assert waiters(async_semaphores, semaphore.name) == 0
        await semaphore.release(permit)
        assert await held(semaphore) == 0


class TestTheEndOfALoop:
    """`asyncio.run` cancels everything at once: holders, waiters, and what works for them in the background."""

    @pytest.mark.parametrize("moment", [0.0, 0.001, 0.003, 0.01, 0.05])
    @pytest.mark.parametrize("backend", ["local", "valkey", "cluster"])
    def test_leaves_nothing_and_says_nothing(
        self, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, backend: str, moment: float
    ) -> None:
        url = None if backend == "local" else request.getfixturevalue(backend).url
        name = fresh_name()

        async def work(semaphore: AsyncSemaphore) -> None:
            while True:
                async with semaphore:
                    await asyncio.sleep(0.002)

        async def main() -> None:
            semaphore = AsyncSemaphore(name=name, capacity=3, connection=url, max_sleep=0)
            tasks = [asyncio.create_task(work(semaphore)) for _ in range(20)]
            await asyncio.sleep(moment)
            assert len(tasks) == 20

        began_at = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - began_at < 5
        checking = SyncSemaphore(name=name, capacity=3, connection=url)
        permits = [checking.try_acquire() for _ in range(3)]
        assert all(permits)
        for permit in permits:
            assert permit
            checking.release(permit)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class TestTheTasksInTheBackground:
    """Clients may not let a cancellation through, while they connect: a task that went on would keep the loop up."""

    @pytest.mark.parametrize("backend", ["valkey", "cluster"])
    @pytest.mark.parametrize("name", ["steindamm-hand-overs", "steindamm-leases"])
    def test_end_wherever_they_are_cancelled(self, request: pytest.FixtureRequest, backend: str, name: str) -> None:
        url = request.getfixturevalue(backend).url

        async def cancelled_after(steps: int) -> None:
            semaphore = AsyncSemaphore(name=fresh_name(), connection=url, capacity=1, max_sleep=0, expiry=1)
            permit = await semaphore.acquire()
            waiting = asyncio.create_task(semaphore.acquire())
            while not (  # noqa: ASYNC110
                tasks := [task for task in asyncio.all_tasks() if task.get_name() == name]
            ):
                await asyncio.sleep(0)
            semaphore.backend.link.watch.hurry()
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[0].cancel()
            done, _ = await asyncio.wait(tasks, timeout=4)
            assert done, f"lives on when cancelled after {steps} steps"
            waiting.cancel()
            await asyncio.wait({waiting})
            await semaphore.release(permit)

        for steps in range(40):
            asyncio.run(cancelled_after(steps))


INTERRUPTED = """
import os, signal, sys, threading, time
from steindamm import SyncSemaphore

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background hands on that it is ignored
url, name, where = sys.argv[1:]
semaphore = SyncSemaphore(name=name, capacity=1, max_sleep=0, connection=None if url == "local" else url)
holder = semaphore.acquire() if where == "waiting" else None
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    with semaphore:
        time.sleep(30)
except KeyboardInterrupt:
    if holder:
        semaphore.release(holder)
    print("free" if semaphore.try_acquire() else "taken", flush=True)
    os._exit(0)
"""


class TestAThreadInterrupted:
    @pytest.mark.parametrize("where", ["waiting", "holding"])
    @pytest.mark.parametrize("backend", ["local", "valkey"])
    def test_by_ctrl_c_leaves_nothing(self, valkey: Server, backend: str, where: str) -> None:
        name = fresh_name()
        url = valkey.url if backend == "valkey" else "local"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", INTERRUPTED, url, name, where],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("free\n", "", 0)
        if backend == "valkey":
            assert valkey.admin.zcard(keys_of(name)[4]) == 0

    async def test_by_an_exception_from_a_signal_while_it_asks(self, valkey: Server) -> None:
        """A soft time limit of a job queue, say: the request has been sent, the reply has not come."""

        class SoftLimitError(Exception):
            pass

        def limit(*_: object) -> None:
            raise SoftLimitError

        semaphore = SyncSemaphore(name=fresh_name(), capacity=1, connection=valkey.url)
        semaphore.release(semaphore.acquire())
        before = signal.signal(signal.SIGALRM, limit)
        for method in (semaphore.acquire, semaphore.try_acquire, semaphore.reserve):
            valkey.signal(signal.SIGSTOP)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                resume = asyncio.get_running_loop().run_in_executor(None, resumed_later, valkey)
                with pytest.raises(SoftLimitError):
                    method()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                await resume
            assert await held(semaphore) == 0
        signal.signal(signal.SIGALRM, before)


def resumed_later(server: Server) -> None:
    time.sleep(0.2)
    server.signal(signal.SIGCONT)


async def test_a_shared_client_survives_all_that(valkey: Server) -> None:
    client = redis.asyncio.Redis.from_url(valkey.url, max_connections=3)
    semaphore = AsyncSemaphore(name=fresh_name(), capacity=1, max_sleep=0, connection=client)
    for steps in range(30):
        tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(5)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for permit in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(permit, SlotPermit):
                await semaphore.release(permit)
    permit = await asyncio.wait_for(semaphore.acquire(), 5)
    await semaphore.release(permit)
    await client.aclose()
