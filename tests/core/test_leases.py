"""A slot is a lease: whoever lives keeps it however long, whoever dies or stands still loses it when it ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import redis
from support.buckets import call
from support.holder import Holder
from support.semaphores import fresh_name, held, until
from support.servers import Cluster, Server, valkey_binary

from steindamm import AsyncSemaphore, SyncSemaphore

EXPIRY = 2.0
SHORT = 1.0


@pytest.fixture(scope="module", params=[False, True], ids=["sync", "async"])
def other(request: pytest.FixtureRequest, valkey: Server) -> Iterator[Holder]:
    """Another process, of threads or of tasks."""
    with Holder(valkey.url, asynchronous=request.param) as holder:
        yield holder


class TestTheStopped:
    """A process that stands still for longer than its lease does not know what it has missed."""

    async def test_a_holder_has_lost_its_slot_and_says_so(self, valkey: Server, other: Holder) -> None:
        semaphore = semaphore_at(valkey)
        other.acquires(semaphore.name, EXPIRY)
        assert other.says() == "holds"
        other.signal(signal.SIGSTOP)
        permit = await call(semaphore.acquire)
        other.signal(signal.SIGCONT)
        assert other.ask("lost") == "True"
        assert other.ask("release") == "released"
        assert await held(semaphore) == 1
        assert not permit.lost
        await call(semaphore.release, permit)

    async def test_a_waiter_does_not_take_a_slot_that_has_gone_to_another(self, valkey: Server, other: Holder) -> None:
        semaphore = semaphore_at(valkey)
        permit = await call(semaphore.acquire)
        other.acquires(semaphore.name, EXPIRY)
        await until(lambda: waiting(valkey, semaphore.name) == 1)
        await asyncio.sleep(0.1)
        other.signal(signal.SIGSTOP)
        await call(semaphore.release, permit)
        permit = await call(semaphore.acquire)
        other.signal(signal.SIGCONT)
        await asyncio.sleep(0.3)
        assert other.says_nothing()
        await call(semaphore.release, permit)
        assert other.says() == "holds"
        assert other.ask("lost") == "False"
        assert other.ask("release") == "released"


class TestTheDead:
    @pytest.mark.parametrize(("backend", "asynchronous"), [("valkey", False), ("cluster", True)])
    async def test_a_killed_holder_frees_its_slot_after_its_lease_and_not_before(
        self, request: pytest.FixtureRequest, backend: str, asynchronous: bool
    ) -> None:
        server = request.getfixturevalue(backend)
        others = semaphore_at(server, capacity=2)
        with Holder(server.url, asynchronous=asynchronous) as holder:
            holder.acquires(others.name, EXPIRY, 2)
            assert holder.says() == "holds"
            await asyncio.sleep(EXPIRY / 2)
            holder.signal(signal.SIGKILL)
            holder.process.wait()
            killed_at = time.monotonic()
            while await held(others):
                await asyncio.sleep(0.02)
                assert time.monotonic() - killed_at < EXPIRY + 5
            assert time.monotonic() - killed_at > EXPIRY / 3

    async def test_a_killed_waiter_is_passed_over(self, valkey: Server) -> None:
        semaphore = semaphore_at(valkey)
        permit = await call(semaphore.acquire)
        with Holder(valkey.url) as first:
            first.acquires(semaphore.name, EXPIRY)
            await until(lambda: waiting(valkey, semaphore.name) == 1)
            second = asyncio.create_task(call(semaphore.acquire))
            await until(lambda: waiting(valkey, semaphore.name) == 2)
            first.signal(signal.SIGKILL)
            first.process.wait()
            await call(semaphore.release, permit)
            await call(semaphore.release, await asyncio.wait_for(second, 10))
        assert await held(semaphore) == 0


def semaphore_at(server: Any, capacity: int = 1) -> SyncSemaphore:
    return SyncSemaphore(name=fresh_name(), connection=server.url, capacity=capacity, expiry=EXPIRY, max_sleep=0)


def waiting(server: Server, name: str) -> int:
    return int(server.admin.zcard(f"steindamm:{{{name}}}:semaphore:present"))


class TestTheLiving:
    async def test_a_holder_keeps_its_slot_many_times_longer_than_its_lease(
        self, valkey: Server, cluster: Cluster
    ) -> None:
        """In every kind at once, and whether the slot was free or handed over."""

        async def hold(kind: Any, url: str) -> None:
            semaphore = kind(name=fresh_name(), connection=url, capacity=1, expiry=EXPIRY, max_sleep=0)
            first = await call(semaphore.acquire)
            waiting = asyncio.create_task(call(semaphore.acquire))
            for permit in (first, None):
                permit = permit or await asyncio.wait_for(waiting, 5)  # noqa: PLW2901
                for _ in range(10):
                    await asyncio.sleep(EXPIRY / 4)
                    assert await call(semaphore.try_acquire) is None
                assert not permit.lost
                await call(semaphore.release, permit)
            assert await held(semaphore) == 0

        kinds = product([SyncSemaphore, AsyncSemaphore], [valkey.url, cluster.url])
        await asyncio.gather(*(hold(*kind) for kind in kinds))

    def test_one_thread_of_a_client_renews_all_its_leases(self, tmp_path: Path) -> None:
        with Server(valkey_binary(), tmp_path) as server, redis.Redis.from_url(server.url) as client:
            before = set(threading.enumerate())
            semaphores = [SyncSemaphore(name=f"s{n}", connection=client, capacity=20, expiry=SHORT) for n in range(3)]
            permits = [(semaphore, semaphore.acquire()) for semaphore in semaphores for _ in range(20)]
            new = set(threading.enumerate()) - before
            assert [thread.name for thread in new] == ["steindamm-leases"]
            time.sleep(SHORT)
            server.admin.config_resetstat()
            time.sleep(2 * SHORT)
            calls = server.admin.info("commandstats")["cmdstat_evalsha"]["calls"]
            assert calls < 60
            assert not any(permit.lost for _, permit in permits)
            for semaphore, permit in permits:
                semaphore.release(permit)

    def test_it_sleeps_while_slots_come_and_go(self, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that is woken at each acquire takes the interpreter from whoever acquires."""
        semaphore = SyncSemaphore(name=fresh_name(), connection=valkey.url, capacity=1, expiry=30)
        watch, looks = semaphore.backend.link.watch, []
        look = watch._watched.due
        monkeypatch.setattr(watch._watched, "due", lambda: looks.append(1) or look())
        for _ in range(100):
            with semaphore:
                pass
        assert len(looks) < 20

    async def test_one_task_of_a_loop_renews_all_its_leases(self, tmp_path: Path) -> None:
        with Server(valkey_binary(), tmp_path) as server:
            semaphores = [
                AsyncSemaphore(name=f"s{n}", connection=server.url, capacity=20, expiry=SHORT) for n in range(3)
            ]
            permits = [(semaphore, await semaphore.acquire()) for semaphore in semaphores for _ in range(20)]
            assert [task.get_name() for task in asyncio.all_tasks()].count("steindamm-leases") == 1
            await asyncio.sleep(SHORT)
            server.admin.config_resetstat()
            await asyncio.sleep(2 * SHORT)
            calls = server.admin.info("commandstats")["cmdstat_evalsha"]["calls"]
            assert calls < 60
            assert not any(permit.lost for _, permit in permits)
            for semaphore, permit in permits:
                await semaphore.release(permit)


class TestTheEndOfAProcess:
    """Nothing that renews or listens keeps a process from ending, and nothing is said of it."""

    @pytest.mark.parametrize("script", ["SYNC", "ASYNC"])
    def test_with_leases_held_and_waiters_waiting(self, valkey: Server, script: str) -> None:
        began_at = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPTS[script], valkey.url, fresh_name()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("1 holds, 3 wait\n", "", 0)
        assert time.monotonic() - began_at < 25


SCRIPTS: dict[str, Any] = {
    "SYNC": """
import sys, threading, time
from steindamm import SyncSemaphore

url, name = sys.argv[1:]
semaphore = SyncSemaphore(name=name, connection=url, capacity=1, max_sleep=0, expiry=2)
permit = semaphore.acquire()
waiting = [threading.Thread(target=semaphore.acquire, daemon=True) for _ in range(3)]
for thread in waiting:
    thread.start()
time.sleep(0.3)
print(f"1 holds, {sum(thread.is_alive() for thread in waiting)} wait")
""",
    "ASYNC": """
import asyncio, sys
from steindamm import AsyncSemaphore

url, name = sys.argv[1:]

async def main():
    semaphore = AsyncSemaphore(name=name, connection=url, capacity=1, max_sleep=0, expiry=2)
    permit = await semaphore.acquire()
    waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
    await asyncio.sleep(0.3)
    print(f"1 holds, {sum(not task.done() for task in waiting)} wait")

asyncio.run(main())
""",
}
