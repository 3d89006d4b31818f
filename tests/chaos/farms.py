"""Workers of one queue or of several, and the servers of their jobs and limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from support.processes import descendants
from support.servers import Server, valkey_binary

from chaos.journal import Journal
from chaos.queues import Jobs, Queue
from chaos.scenes import wait_until

TESTS = Path(__file__).parents[1]
STARTING = 60.0
ENDING = 30.0


class Worker:
    """A worker: a process and its children."""

    def __init__(self, queue: Queue, number: int, journal: Journal, environment: dict[str, str]) -> None:
        self.queue = queue
        self.end_is_known = False
        self._journal = journal
        with (journal.folder / "workers.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *queue.command(number)], cwd=TESTS, env=environment, stdout=log, stderr=log
            )

    @property
    def pids(self) -> list[int]:
        """Its main process, those that this one has started, and theirs."""
        return [self.process.pid, *descendants(self.process.pid)]

    def kill(self) -> None:
        """SIGKILL, for all of it, as a power cut does."""
        self.end_is_known = True
        pids = self.pids
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            self._journal.write("killed", pid=pid)
        self.process.wait(ENDING)

    def stop(self) -> None:
        """SIGSTOP, for all of it, as a suspended machine does."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
            self._journal.write("stopped", pid=pid)

    def go_on(self) -> None:
        """SIGCONT."""
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def kill_child(self) -> None:
        """SIGKILL, for one process of its pool."""
        child = self.pids[-1]
        os.kill(child, signal.SIGKILL)
        self._journal.write("killed", pid=child)

    def end(self) -> None:
        """SIGTERM."""
        self.end_is_known = True
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(ENDING)


class Farm:
    """A broker, a server for the limits, and workers.

    Parameters:
        folder: Where everything is kept.
        queues: Those that the workers belong to.
    """

    def __init__(self, folder: Path, queues: Sequence[Queue]) -> None:
        self.journal = Journal(folder)
        self.broker, self.server = (self._server(folder / name) for name in ("broker", "limits"))
        self.queues = queues
        self._environment = {
            **os.environ,
            "CHAOS_BROKER": self.broker.url,
            "CHAOS_LIMITS": self.server.url,
            "CHAOS_JOURNAL": str(folder),
            "dramatiq_worker_timeout": "50",
        }
        self.workers: list[Worker] = []

    @staticmethod
    def _server(folder: Path) -> Server:
        folder.mkdir()
        return Server(valkey_binary(), folder)

    def start(self, queue: Queue) -> None:
        """Start one more worker of a queue."""
        self.workers.append(Worker(queue, len(self.workers), self.journal, self._environment))

    def replace_the_dead(self) -> None:
        """Start a worker for each that has ended by itself, as a supervisor does."""
        for worker in tuple(self.workers):
            if worker.process.poll() is not None and not worker.end_is_known:
                worker.end_is_known = True
                self.journal.write("ended", pid=worker.process.pid)
                self.start(worker.queue)

    def wait_until_ready(self) -> None:
        """Wait until all who live have said that they are ready."""

        def all_are_ready() -> bool:
            ready = {event.pid for event in self.journal.events() if event.what == "ready"}
            return all(ready.intersection(worker.pids) for worker in self.living)

        wait_until(all_are_ready, f"not all are ready: {self.journal.folder}", STARTING)

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.poll() is None]

    def send(self, jobs: Jobs) -> None:
        """Send jobs, to each queue its share of them."""
        for n, queue in enumerate(self.queues):
            queue.send(self.broker.url, jobs[n :: len(self.queues)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.living:
            worker.kill()
        for server in (self.broker, self.server):
            server.stop()
