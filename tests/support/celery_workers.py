"""Celery as the tests look at it: a broker, worker processes, and the journal that their jobs write."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from celery import Celery
from celery.result import AsyncResult

from support.servers import Server

PATIENCE = 60.0
TESTS = Path(__file__).parent.parent


class Entry(NamedTuple):
    """What a job wrote into the journal: when by the broker's clock, what, about which job, and more."""

    at: float
    what: str
    job: str
    more: list[str]


def until(reached: Callable[[], Any], seconds: float = PATIENCE, what: str = "nothing") -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, f"{what} after {seconds} s"
        time.sleep(0.02)
    return found


def most_in(span: float, moments: list[float]) -> int:
    """The most moments in any window of so many seconds."""
    moments, first, most = sorted(moments), 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= span:
            first += 1
        most = max(most, last - first + 1)
    return most


class Result(AsyncResult):
    """A result to come that, once nobody waits for it, does not turn to a server which may have ended."""

    def __del__(self) -> None:
        pass


class Worker:
    """A worker process as people start it, for the app in `support.celery_app`."""

    def __init__(self, log: Path, environment: dict[str, str], *options: str) -> None:
        self.log = log
        self.name = f"{log.stem}@tests"
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "support.celery_app", "worker", "-l", "INFO", "-E",
                 "--without-gossip", "--without-mingle", *options],
                env=environment, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def says(self, text: str) -> int:
        """How often its log holds a text."""
        return self.log.read_text().count(text)

    def wait_until_it_says(self, text: str, count: int = 1) -> None:
        until(lambda: self.says(text) >= count or not self.is_alive, 100, f"not {count} times {text!r} in {self.log}")
        assert self.is_alive, self.log.read_text()[-2000:]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


class Farm:
    """A broker with its workers.

    Parameters:
        server: The broker; it holds the results and the journal, too.
        folder: Where the workers log.
        limits: The limiters' server; by default the broker.
        settings: Celery's, for the workers and for those who send.
    """

    def __init__(self, server: Server, folder: Path, limits: Server | None = None, **settings: Any) -> None:
        self.server = server
        self.limits = limits or server
        self.admin = server.admin
        self.workers: list[Worker] = []
        self._entries: list[Entry] = []
        self._folder = folder
        self.app = Celery("sender", broker=server.url, backend=server.url)
        self.app.conf.update(settings)
        self.app.AsyncResult = type("Result", (Result,), {"app": self.app})
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "STEINDAMM_TEST_BROKER": server.url,
            "STEINDAMM_TEST_LIMITS": self.limits.url,
            "STEINDAMM_TEST_SETTINGS": json.dumps(settings),
        }

    def start(self, *options: str, queue: str = "celery", concurrency: int = 4, ready: bool = True) -> Worker:
        """Start a worker; it is ready when this returns, unless it need not be."""
        name = f"w{len(self.workers)}-{uuid.uuid4().hex[:6]}"
        log = self._folder / f"{name}.log"
        more = ("-n", f"{name}@tests", "-Q", queue, "-c", str(concurrency), *options)
        self.workers.append(Worker(log, self._environment, *more))
        if ready:
            self.workers[-1].wait_until_it_says(" ready.")
        return self.workers[-1]

    def wait_until_ready(self) -> None:
        for worker in self.workers:
            worker.wait_until_it_says(" ready.")

    def warm_up(self, queue: str = "celery", jobs: int = 40) -> None:
        """Have every pool process run something: its first job takes long."""
        label = uuid.uuid4().hex
        for _ in range(jobs):
            self.send("unlimited", label, 0.02, queue=queue)
        self.wait_for("unlimited", label, jobs)

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a job; returns its result to come."""
        return self.app.send_task(f"support.celery_app.{task}", args, **options)

    def signature(self, task: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(f"support.celery_app.{task}", args, **options)

    def now(self) -> float:
        """The time by the broker's clock."""
        seconds, microseconds = self.admin.time()
        return float(seconds + microseconds / 1e6)

    def journal(self, what: str, label: str | None = None) -> list[Entry]:
        """All entries of a kind; only those of jobs whose label begins so, where one is given."""
        for line in self.admin.lrange("journal", len(self._entries), -1):
            at, kind, job, *more = json.loads(line)
            self._entries.append(Entry(at, kind, job, more))
        return [entry for entry in self._entries if entry.what == what and entry.job.startswith(label or "")]

    def wait_for(self, what: str, label: str | None = None, count: int = 1, seconds: float = PATIENCE) -> list[Entry]:
        """Wait for so many entries."""
        until(lambda: len(self.journal(what, label)) >= count, seconds, f"not {count} entries {what!r} of {label!r}")
        return self.journal(what, label)

    def says(self, text: str) -> int:
        """How often the workers' logs hold a text."""
        return sum(worker.says(text) for worker in self.workers)

    def wait_until_logged(self, text: str, count: int = 1) -> None:
        """Wait until the workers' logs hold a text so often."""
        until(lambda: self.says(text) >= count, what=f"not {count} times {text!r} in {self._folder}")

    def deliveries(self, task: str) -> int:
        """How often a worker took a job of a task from the queue."""
        received = re.compile(rf"Task support\.celery_app\.{task}\[[^]]*\] received")
        return sum(len(received.findall(worker.log.read_text())) for worker in self.workers)

    def stop(self) -> None:
        """End all that still runs."""
        for worker in self.workers:
            if worker.is_alive:
                worker.process.send_signal(signal.SIGCONT)
                worker.end(signal.SIGKILL)
        self.app.close()
