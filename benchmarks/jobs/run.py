"""Real workers of one queue, on a server of their own."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from benchmarks.support.crew import ROOT
from benchmarks.support.servers import server, version

QUEUES = {"celery": "celery", "dramatiq": "dramatiq", "arq": "arq"}
PATIENCE = 60.0


@dataclass
class Bench:
    """A queue's app, and the journal of its jobs.

    Attributes:
        queue: The queue's name.
        app: Its module under `benchmarks.jobs`.
        journal: What its jobs write down.
        server: The server's name and version.
    """

    queue: str
    app: ModuleType
    journal: ModuleType
    server: str

    def clear(self) -> None:
        self.journal.client.flushall()

    @contextmanager
    def workers(self, count: int, kind: str = "") -> Iterator[None]:
        """So many workers for jobs of one kind, or of any; they are told to end, and then killed."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        silent = None if os.environ.get("STEINDAMM_BENCH_VERBOSE") else subprocess.DEVNULL
        running = [
            subprocess.Popen(
                self.app.worker_command(number, kind), cwd=ROOT, env=environment, stdout=silent, stderr=silent
            )
            for number in range(count)
        ]
        try:
            yield
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Whether it came to be so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.05)
    return False


def queue_here() -> str:
    """The queue of this environment: each has its own range of redis-py, so there is one in each."""
    for queue in QUEUES:
        if importlib.util.find_spec(queue) and _has_app(queue):
            return queue
    raise SystemExit("no queue is installed here: install celery and celery-heimdall, or dramatiq, or arq")


def _has_app(queue: str) -> bool:
    return queue != "dramatiq" or not importlib.util.find_spec("celery")


@contextmanager
def bench(queue: str) -> Iterator[Bench]:
    """A queue, ready to be filled."""
    with server() as running:
        os.environ["STEINDAMM_BENCH_URL"] = running.url
        journal = importlib.import_module("benchmarks.jobs.journal")
        app = importlib.import_module(f"benchmarks.jobs.{queue}_app")
        yield Bench(queue, app, journal, version(running))
