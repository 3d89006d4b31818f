"""arq's Redis as the tests look at it, and worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from support.servers import Server

PATIENCE = 20.0
TESTS = Path(__file__).parent.parent


class Entry(NamedTuple):
    """What a job wrote into the journal: when by the server's clock, and what."""

    at: float
    what: str
    job: str
    more: list[str]


class Broker:
    """arq's Redis, as the tests look at it.

    Parameters:
        server: The server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url
        self.admin = server.admin

    def journal(self, what: str) -> list[Entry]:
        """All entries of a kind."""
        lines = (json.loads(line) for line in self.admin.lrange("journal", 0, -1))
        return [Entry(at, kind, job, more) for at, kind, job, *more in lines if kind == what]

    def wait_for(self, what: str, count: int, seconds: float = PATIENCE) -> list[Entry]:
        """Wait for so many entries."""
        end = time.monotonic() + seconds
        while len(found := self.journal(what)) < count:
            assert time.monotonic() < end, f"only {len(found)} of {count} entries of {what!r} after {seconds} s"
            time.sleep(0.02)
        return found

    def wait_for_jobs(self, what: str, count: int) -> None:
        """Wait until so many jobs have made an entry, however often."""
        end = time.monotonic() + PATIENCE
        while len(jobs := {entry.job for entry in self.journal(what)}) < count:
            assert time.monotonic() < end, f"only {len(jobs)} of {count} jobs have entered {what!r}"
            time.sleep(0.02)

    def deliveries(self) -> dict[str, int]:
        """How often a worker took each job."""
        counts: dict[str, int] = {}
        for entry in self.journal("delivered"):
            counts[entry.job] = counts.get(entry.job, 0) + 1
        return counts

    def tries(self, job_id: str) -> int:
        """The tries that arq counts for a job that is not done."""
        return int(self.admin.get(f"arq:retry:{job_id}") or 0)

    def keys(self) -> list[str]:
        """What jobs have left."""
        return [key.decode() for key in self.admin.scan_iter() if not key.endswith(b":health-check")]

    def keys_for_ever(self) -> list[bytes]:
        """Keys of jobs, and of limiters, that have no end."""
        keys = [key for pattern in ("arq:*:*", "steindamm:*") for key in self.admin.scan_iter(pattern)]
        return [key for key in keys if self.admin.ttl(key) == -1]


class WorkerProcess:
    """A worker as people start it, with the settings in `support.arq_jobs`.

    Parameters:
        broker: Where its queue is.
        folder: Where it logs.
        options: What differs in its settings.
        limits: URL of the limiters' server; by default the broker's.
    """

    def __init__(self, broker: Broker, folder: Path, limits: str | None = None, **options: Any) -> None:
        self._broker = broker
        self.log = folder / f"worker-{time.monotonic_ns()}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "STEINDAMM_TEST_BROKER": broker.url,
            "STEINDAMM_TEST_LIMITS": limits or broker.url,
            "STEINDAMM_TEST_OPTIONS": json.dumps(options),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "arq", "support.arq_jobs.WorkerSettings"],
                env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)
