"""The queues: how people start a worker of each, and how jobs are sent to it."""

from __future__ import annotations

import asyncio

Jobs = list[tuple[str, int, str]]
"""Kind, round and name of each."""


class CeleryQueue:
    """Celery, with a pool of processes."""

    def command(self, number: int) -> list[str]:
        """What starts a worker, with a name of its own."""
        return [
            "celery", "-A", "chaos.apps.celery_app", "worker", "--loglevel", "INFO", "--concurrency", "4",
            "--without-gossip", "--without-mingle", "--hostname", f"worker-{number}@chaos",
        ]  # fmt: skip

    def send(self, url: str, jobs: Jobs) -> None:
        """Send them all."""
        from celery import Celery

        with Celery("sender", broker=url) as app:
            for kind, round_, who in jobs:
                app.send_task("work", (kind, round_, who), task_id=who, ignore_result=True)


class DramatiqQueue:
    """Dramatiq, one process of eight threads a worker."""

    def command(self, number: int) -> list[str]:
        """What starts a worker."""
        return ["dramatiq", "chaos.apps.dramatiq_app", "--processes", "1", "--threads", "8"]

    def send(self, url: str, jobs: Jobs) -> None:
        """Send them all."""
        from dramatiq import Message
        from dramatiq.brokers.redis import RedisBroker

        broker = RedisBroker(url=url, middleware=[])
        for kind, round_, who in jobs:
            broker.enqueue(Message("default", "work", (kind, round_, who), {}, {}, message_id=who))
        broker.close()


class ArqQueue:
    """arq."""

    def command(self, number: int) -> list[str]:
        """What starts a worker."""
        return ["arq", "chaos.apps.arq_app.WorkerSettings"]

    def send(self, url: str, jobs: Jobs) -> None:
        """Send them all."""
        asyncio.run(self._send(url, jobs))

    async def _send(self, url: str, jobs: Jobs) -> None:
        from arq.connections import RedisSettings, create_pool

        pool = await create_pool(RedisSettings.from_dsn(url))
        for kind, round_, who in jobs:
            await pool.enqueue_job("work", kind, round_, who, _job_id=who)
        await pool.aclose(close_connection_pool=True)


Queue = CeleryQueue | DramatiqQueue | ArqQueue

QUEUES: dict[str, list[Queue]] = {
    "celery": [CeleryQueue()],
    "dramatiq": [DramatiqQueue()],
    "arq": [ArqQueue()],
    "mixed": [DramatiqQueue(), ArqQueue(), CeleryQueue()],
}
"""Who works: three workers of one queue, or one of each.

The first is the one that is killed. In the mixture that is not Celery's: the kombu that shares a redis-py with arq
brings ten messages of a killed worker back every hundred seconds.
"""
