"""A Celery, a Dramatiq and an arq worker, and plain threads, at one limiter."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import Server, valkey_binary

TESTS = Path(__file__).parents[1]
WORKERS = {
    "celery": ("celery", "-A", "support.together_app:celery_app", "worker", "-c", "2", "--without-mingle"),
    "dramatiq": ("dramatiq", "support.together_app", "--processes", "1", "--threads", "4"),
    "arq": ("arq", "support.together_app.WorkerSettings"),
}
SECONDS, OFFERED = 7.0, 15.0
LIMIT, CAPACITY = 40, 4


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The app, with a worker of each queue running."""
    with Server(valkey_binary(), tmp_path) as server:
        monkeypatch.setenv("STEINDAMM_TEST_BROKER", server.url)
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "dramatiq_worker_timeout": "50"}
        workers = []
        for name, command in WORKERS.items():
            with (tmp_path / f"{name}.log").open("wb") as log:
                program = (sys.executable, "-m", *command)
                workers.append(subprocess.Popen(program, env=environment, stdout=log, stderr=log))
        from support import together_app

        yield together_app
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(20)


async def offer(app: Any) -> int:
    """Send each queue, and the threads, the same load, above the limit; returns how many each got."""
    from arq import create_pool

    pool = await create_pool(app.WorkerSettings.redis_settings)
    count = int(SECONDS * OFFERED)
    begin = time.monotonic()
    for number in range(count):
        app.celery_job.delay()
        app.dramatiq_job.send()
        await pool.enqueue_job("arq_job")
        threading.Thread(target=app.plain_job, daemon=True).start()
        await asyncio.sleep(max(0.0, begin + (number + 1) / OFFERED - time.monotonic()))
    await pool.aclose()
    return count


def everybody_is_there(app: Any) -> bool:
    return {who for who, _ in app.read_journal()} == {"celery", "dramatiq", "arq", "plain"}


def warm_up(app: Any) -> None:
    """Let each worker run one job."""
    app.celery_job.delay()
    app.dramatiq_job.send()
    app.plain_job()

    async def send() -> None:
        from arq import create_pool

        pool = await create_pool(app.WorkerSettings.redis_settings)
        await pool.enqueue_job("arq_job")
        await pool.aclose()

    asyncio.run(send())
    deadline = time.monotonic() + 30
    while not everybody_is_there(app):
        assert time.monotonic() < deadline, "a worker runs no job"
        time.sleep(0.1)
    app.journal.delete("journal")


def test_the_limit_holds_for_all_and_each_gets_its_share(app: Any) -> None:
    warm_up(app)
    count = asyncio.run(offer(app))
    deadline = time.monotonic() + 30
    while len(app.read_journal()) < 4 * count:
        assert time.monotonic() < deadline, Counter(who for who, _ in app.read_journal())
        time.sleep(0.2)

    starts = sorted((when, who) for who, when in app.read_journal())
    times = [when for when, _ in starts]
    most = max(sum(begin <= time < begin + 1 for time in times) for begin in times)
    assert most <= LIMIT + CAPACITY
    begin = times[0]
    shares = Counter(who for when, who in starts if begin + 1 <= when < begin + SECONDS - 1)
    fair = LIMIT * (SECONDS - 2) / 4
    assert all(shares[who] >= fair / 2 for who in ("celery", "dramatiq", "arq", "plain")), shares
    assert Counter(who for _, who in starts) == dict.fromkeys(("celery", "dramatiq", "arq", "plain"), count)
