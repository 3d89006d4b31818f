"""Workers of each queue, as people start them, and the means to send them jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from support.servers import Server, valkey_binary

from chaos.journal import Journal
from chaos.scenes import wait_until

TESTS = Path(__file__).parents[1]
WORKERS = 3
STARTING = 60.0
ENDING = 30.0


class Worker:
    """A worker: a process and its children."""

    def __init__(self, journal: Journal, command: list[str], environment: dict[str, str]) -> None:
        self._journal = journal
        with (journal.folder / "workers.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=TESTS, env=environment, stdout=log, stderr=log
            )

    @property
    def children(self) -> list[int]:
        """Those that its main process has started, and theirs."""
        return descendants(self.process.pid)

    def kill(self) -> None:
        """SIGKILL, for all of it, as a power cut does."""
        pids = [self.process.pid, *self.children]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            self._journal.write("killed", pid=pid)
        self.process.wait(ENDING)

    def kill_child(self) -> None:
        """SIGKILL, for one process of its pool."""
        child = self.children[-1]
        os.kill(child, signal.SIGKILL)
        self._journal.write("killed", pid=child)

    def end(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(ENDING)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        direct = [int(child) for child in children.read_text().split()]
    except FileNotFoundError:
        return []
    return [each for child in direct for each in (child, *descendants(child))]


class Farm:
    """A broker, a server for the limits, and workers.

    Parameters:
        folder: Where everything is kept.
    """

    command: ClassVar[list[str]]
    more: ClassVar[dict[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        self.broker, self.server = (self._server(folder / name) for name in ("broker", "limits"))
        self._environment = {
            **os.environ,
            "CHAOS_BROKER": self.broker.url,
            "CHAOS_LIMITS": self.server.url,
            "CHAOS_JOURNAL": str(folder),
            **self.more,
        }
        self.workers: list[Worker] = []

    @staticmethod
    def _server(folder: Path) -> Server:
        folder.mkdir()
        return Server(valkey_binary(), folder)

    def start(self) -> None:
        """Start one more worker."""
        self.workers.append(Worker(self.journal, self.command, self._environment))

    def wait_until_ready(self) -> None:
        """Wait until so many workers as there ever were have been ready."""

        def ready() -> int:
            return sum(event.what == "ready" for event in self.journal.events())

        wait_until(lambda: ready() >= len(self.workers), f"not all are ready: {self.journal.folder}", STARTING)

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.poll() is None]

    def send(self, jobs: list[tuple[str, int, str]]) -> None:
        """Send jobs: kind, round and name."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.living:
            worker.kill()
        for server in (self.broker, self.server):
            server.stop()


class CeleryFarm(Farm):
    """Celery, with a pool of processes."""

    command: ClassVar = [
        "celery", "-A", "chaos.apps.celery_app", "worker", "--loglevel", "INFO", "--concurrency", "4",
        "--without-gossip", "--without-mingle", "--hostname", "%n@%%i",
    ]  # fmt: skip

    def start(self) -> None:
        """Start one more worker, with a name of its own."""
        self.command = [*type(self).command[:-1], f"worker-{len(self.workers)}@chaos"]
        super().start()

    def send(self, jobs: list[tuple[str, int, str]]) -> None:
        from celery import Celery

        with Celery("sender", broker=self.broker.url) as app:
            for kind, round_, who in jobs:
                app.send_task("work", (kind, round_, who), task_id=who, ignore_result=True)


class DramatiqFarm(Farm):
    """Dramatiq, one process of eight threads a worker."""

    command: ClassVar = ["dramatiq", "chaos.apps.dramatiq_app", "--processes", "1", "--threads", "8"]
    more: ClassVar = {"dramatiq_worker_timeout": "50"}

    def send(self, jobs: list[tuple[str, int, str]]) -> None:
        from dramatiq import Message
        from dramatiq.brokers.redis import RedisBroker

        broker = RedisBroker(url=self.broker.url, middleware=[])
        for kind, round_, who in jobs:
            broker.enqueue(Message("default", "work", (kind, round_, who), {}, {}, message_id=who))
        broker.close()


class ArqFarm(Farm):
    """arq."""

    command: ClassVar = ["arq", "chaos.apps.arq_app.WorkerSettings"]

    def send(self, jobs: list[tuple[str, int, str]]) -> None:
        asyncio.run(self._send(jobs))

    async def _send(self, jobs: list[tuple[str, int, str]]) -> None:
        from arq.connections import RedisSettings, create_pool

        pool = await create_pool(RedisSettings.from_dsn(self.broker.url))
        for kind, round_, who in jobs:
            await pool.enqueue_job("work", kind, round_, who, _job_id=who)
        await pool.aclose(close_connection_pool=True)


FARMS: dict[str, Any] = {"celery": CeleryFarm, "dramatiq": DramatiqFarm, "arq": ArqFarm}
