"""Redis goes away, the limiters' or arq's own: no job is lost or fails, and the worker does not end by it."""

from __future__ import annotations

import asyncio
import functools
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker, create_worker, func
from redis.exceptions import ConnectionError as RedisConnectionError
from support.arq_limits import cron_at_startup
from support.arq_workers import PATIENCE, Broker, WorkerProcess
from support.semaphores import until
from support.servers import Server, valkey_binary

import steindamm
from steindamm import AsyncSemaphore, AsyncTokenBucket
from steindamm.integrations.arq import rate_limited, rate_limited_worker

COUNT = 20
OURS = str(Path(steindamm.__file__).parent)


@pytest.fixture
def limits_server(tmp_path: Path) -> Iterator[Server]:
    """Another server, for the limiters alone."""
    with Server(valkey_binary(), tmp_path) as server:
        yield server


async def test_while_the_limiters_server_is_away_limited_jobs_wait_and_others_run(
    broker: Any, send: Any, start_workers: Any, limits_server: Server
) -> None:
    [worker] = start_workers(limits=limits_server.url)
    await send("hold_slot", 0, 0.5)
    await asyncio.to_thread(broker.wait_for, "in", 1)
    limits_server.kill()
    for number in range(COUNT):
        await send("call_api", number)
    await send("hold_slot", 1)
    await send("unlimited", 0)
    await asyncio.to_thread(broker.wait_for, "unlimited", 1)
    assert await asyncio.to_thread(deferred_twice, broker)
    assert broker.journal("call") == []
    limits_server.start()
    calls = await asyncio.to_thread(broker.wait_for, "call", COUNT)
    await asyncio.to_thread(broker.wait_for, "out", 2)
    assert sorted(int(call.job) for call in calls) == list(range(COUNT))
    assert {call.more[0] for call in calls} == {"1"}
    assert worker.is_alive
    assert worker.end() == 0


def deferred_twice(broker: Any) -> bool:
    """Whether every limited job has been delivered twice, and still waits."""
    broker.wait_for("delivered", 3 * COUNT)
    return bool(broker.admin.zcard("arq:queue") == COUNT + 1)


async def test_limiters_whose_server_hangs_hold_up_nobody_else(
    broker: Any, send: Any, start_workers: Any, limits_server: Server
) -> None:
    [worker] = start_workers(limits=limits_server.url)
    limits_server.signal(signal.SIGSTOP)
    for number in range(4):
        await send("call_api", number)
    await send("unlimited", 0)
    await asyncio.to_thread(broker.wait_for, "unlimited", 1)
    limits_server.signal(signal.SIGCONT)
    await asyncio.to_thread(broker.wait_for, "call", 4)
    assert worker.is_alive


@pytest.mark.parametrize(("function", "entry"), [("call_api", "call"), ("hold_slot", "in")])
async def test_a_job_is_put_back_before_its_timeout_ends_it_while_the_limiters_server_hangs(
    broker: Any, send: Any, start_workers: Any, limits_server: Server, function: str, entry: str
) -> None:
    """Else it would fail, for good, without having begun."""
    start_workers(limits=limits_server.url, job_timeout=1)
    limits_server.signal(signal.SIGSTOP)
    for number in range(4):
        await send(function, number)
    await asyncio.to_thread(broker.wait_for, "delivered", 12)
    limits_server.signal(signal.SIGCONT)
    begun = await asyncio.to_thread(broker.wait_for, entry, 4)
    assert {job.more[0] for job in begun} == {"1"}


BUCKET = functools.partial(AsyncTokenBucket, name="hanging")
SEMAPHORE = functools.partial(AsyncSemaphore, name="hanging")


@pytest.mark.parametrize("limiter", [BUCKET, SEMAPHORE], ids=["bucket", "semaphore"])
async def test_it_goes_back_as_its_limiter_is_unavailable_before_its_timeout_comes(
    broker: Broker, send: Any, limits_server: Server, caplog: pytest.LogCaptureFixture, limiter: Callable[..., Any]
) -> None:
    @rate_limited(limiter=limiter(connection=limits_server.url))
    async def work(ctx: dict[str, Any]) -> int:
        return int(ctx["job_try"])

    settings = rate_limited_worker()({"functions": [func(work, name="work", timeout=2)], "poll_delay": 0.02})
    job = await send("work")
    worker = create_worker(settings, redis_settings=RedisSettings.from_dsn(broker.url), handle_signals=False)
    with limits_server.standing_still():
        working = asyncio.create_task(worker.async_run())
        await until(lambda: "is unavailable (TimeoutError)" in caplog.text)
    assert await job.result(timeout=10) == 1
    working.cancel()
    await asyncio.wait({working})
    await worker.close()


def who_asked(log: str) -> str:
    """Whose code asked Redis when the last traceback was made: the innermost file that is not an installed library."""
    files = re.findall(r'File "(.*?)"', log.rpartition("Traceback")[2])
    return [file for file in ["arq", *files] if "/lib/python" not in file][-1]


@pytest.fixture
def lasting_broker(tmp_path: Path) -> Iterator[Broker]:
    """A Valkey for arq that comes back with what it held."""
    folder = tmp_path / "broker"
    folder.mkdir()
    with Server(valkey_binary(), folder, "appendonly yes", "appendfsync always") as server:
        yield Broker(server)


async def test_jobs_survive_the_loss_of_arqs_redis(
    lasting_broker: Broker, limits_server: Server, tmp_path: Path
) -> None:
    """arq's workers end when their Redis does, by themselves; the next ones find all jobs in their places."""
    pool = await create_pool(RedisSettings.from_dsn(lasting_broker.url))
    worker = WorkerProcess(lasting_broker, tmp_path, limits=limits_server.url)
    lasting_broker.wait_for("ready", 1)
    for number in range(COUNT * 4):
        await pool.enqueue_job("call_api", number)
    await pool.aclose(close_connection_pool=True)
    await asyncio.to_thread(lasting_broker.wait_for, "call", COUNT)
    lasting_broker.server.kill()
    assert worker.process.wait(PATIENCE)
    assert not who_asked(worker.log.read_text()).startswith(OURS)
    lasting_broker.server.start()
    for key in lasting_broker.admin.scan_iter("arq:in-progress:*"):
        lasting_broker.admin.delete(key)
    worker = WorkerProcess(lasting_broker, tmp_path, limits=limits_server.url)
    try:
        await asyncio.to_thread(lasting_broker.wait_for_jobs, "call", COUNT * 4)
        assert lasting_broker.keys_for_ever() == []
    finally:
        worker.end(signal.SIGKILL)


class Failing(ArqRedis):
    """arq's client, which finds no connection for one command."""

    has_failed = True

    def fail(self, command: str, prefix: str) -> None:
        self.command, self.prefix, self.has_failed = command, prefix, False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if not self.has_failed and args[0] == self.command and any(str(arg).startswith(self.prefix) for arg in args):
            self.has_failed = True
            raise RedisConnectionError("gone")
        return await super().execute_command(*args, **options)


@pytest.fixture
async def failing_worker(broker: Broker) -> AsyncIterator[Callable[..., Worker]]:
    """Makes workers with such a client."""
    client = Failing.from_url(broker.url)

    def make(command: str, prefix: str, **settings: Any) -> Worker:
        client.fail(command, prefix)
        settings = {"burst": True, "poll_delay": 0.02, "max_burst_jobs": -1, "functions": (), **settings}
        return create_worker(rate_limited_worker()(settings), redis_pool=client, handle_signals=False)

    yield make
    await client.aclose(close_connection_pool=True)


def wait_once(name: str) -> Any:
    """A job that is deferred once, for 0.2 s, and then done."""
    limiter = AsyncTokenBucket(name, capacity=1, initial_tokens=0, refill_frequency=0.3)

    @rate_limited(limiter=limiter, max_sleep=0)
    async def work(ctx: dict[str, Any]) -> int:
        return int(ctx["job_try"])

    return work


@pytest.mark.parametrize("command", ["GET", "EVALSHA", "DEL"], ids=["its booking", "going back", "its start"])
async def test_a_step_that_fails_is_no_failure_of_the_job(
    failing_worker: Callable[..., Worker], send: Any, command: str
) -> None:
    job = await send("work")
    worker = failing_worker(command, "arq:steindamm:", functions=(func(wait_once(command), name="work"),))
    await worker.async_run()
    assert worker.pool.has_failed
    assert await job.result(timeout=5) == 1
    assert worker.jobs_failed == 0


async def test_a_cron_job_that_can_not_be_freed_starts_later_and_the_worker_stays(
    failing_worker: Callable[..., Worker], broker: Broker
) -> None:
    work = cron_at_startup(wait_once("cron"), name="work")
    worker = failing_worker("DEL", "arq:in-progress:", cron_jobs=[work])
    running = asyncio.create_task(worker.async_run())
    await asyncio.sleep(0.5)
    assert worker.pool.has_failed
    assert not running.done()
    [key] = broker.admin.keys("arq:in-progress:*")
    assert broker.admin.ttl(key) > 50
    broker.admin.delete(key)
    await asyncio.wait_for(running, 5)
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 0)


async def test_a_worker_that_ends_without_its_redis_loses_a_try_and_no_more(
    failing_worker: Callable[..., Worker], send: Any, broker: Broker
) -> None:
    limiter = AsyncTokenBucket("ends", capacity=1, initial_tokens=0, refill_frequency=60)

    @rate_limited(limiter=limiter, max_sleep=120)
    async def work(ctx: dict[str, Any]) -> None: ...

    job = await send("work")
    worker = failing_worker("SET", "arq:retry:", functions=(func(work, name="work"),))
    running = asyncio.create_task(worker.async_run())
    await asyncio.sleep(0.3)
    assert worker.job_tasks
    worker.handle_sig(signal.SIGTERM)
    await asyncio.gather(running, *worker.tasks.values(), return_exceptions=True)
    assert worker.pool.has_failed
    assert broker.tries(job.job_id) == 1
    assert broker.admin.zcard("arq:queue") == 1
