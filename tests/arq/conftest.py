"""arq's Redis, and workers: real processes, or one in the test's own loop that ends when its queue is empty."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.arq_workers import Broker, WorkerProcess
from support.servers import Server, valkey_binary

HERE = Path(__file__).parent

if find_spec("arq.worker") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from arq.connections import ArqRedis, RedisSettings, create_pool
    from arq.jobs import Job
    from arq.worker import Worker, create_worker

    from steindamm.integrations.arq import rate_limited_worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"))


@pytest.fixture(scope="session")
def _broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(valkey_binary(), tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture
def broker(_broker_server: Server) -> Iterator[Broker]:
    """A Valkey for arq, empty."""
    _broker_server.admin.flushall()
    broker = Broker(_broker_server)
    yield broker
    assert broker.keys_for_ever() == []


@pytest_asyncio.fixture
async def pool(broker: Broker) -> AsyncIterator[ArqRedis]:
    """A client that sends jobs."""
    pool = await create_pool(RedisSettings.from_dsn(broker.url))
    yield pool
    await pool.aclose(close_connection_pool=True)


@pytest_asyncio.fixture
async def make_worker(pool: ArqRedis) -> AsyncIterator[Callable[..., Worker]]:
    """Makes workers on the test's loop; their settings are fitted."""
    made: list[Worker] = []

    def make(*functions: Any, fitted: bool = True, **settings: Any) -> Worker:
        settings = {"functions": functions, "burst": True, "poll_delay": 0.02, "max_burst_jobs": -1, **settings}
        worker = create_worker(
            rate_limited_worker()(settings) if fitted else settings, redis_pool=pool, handle_signals=False
        )
        made.append(worker)
        return worker

    yield make
    for worker in made:
        tasks = [task for task in (worker.main_task, *worker.tasks.values()) if task and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def run_until_empty(make_worker: Callable[..., Worker]) -> Callable[..., Any]:
    """Runs a worker until its queue is empty."""

    async def run(*functions: Any, **settings: Any) -> Worker:
        worker = make_worker(*functions, **settings)
        await worker.async_run()
        return worker

    return run


@pytest.fixture
def start_workers(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., list[WorkerProcess]]]:
    """Starts worker processes that are ready when it returns."""
    started: list[WorkerProcess] = []

    def start(count: int = 1, **options: Any) -> list[WorkerProcess]:
        ready = len(broker.journal("ready"))
        workers = [WorkerProcess(broker, tmp_path, **options) for _ in range(count)]
        started.extend(workers)
        broker.wait_for("ready", ready + count)
        return workers

    yield start
    for worker in started:
        if worker.is_alive:
            worker.end(signal.SIGKILL)


@pytest.fixture
def send(pool: ArqRedis) -> Callable[..., Any]:
    """Puts a job into the queue."""

    async def send(function: str, *args: Any, **options: Any) -> Job:
        job = await pool.enqueue_job(function, *args, **options)
        assert job is not None
        return job

    return send
