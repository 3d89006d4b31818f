"""One demo from its first process to its last."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from steindamm.demo.calls import read_log
from steindamm.demo.display import Display, display_for, workers_text
from steindamm.demo.errors import DemoError
from steindamm.demo.interruption import LOOK, Interruption
from steindamm.demo.plan import Plan
from steindamm.demo.processes import Processes
from steindamm.demo.progress import Progress
from steindamm.demo.queues import load
from steindamm.demo.readiness import workers_ready
from steindamm.demo.report import report
from steindamm.demo.setup import Setup
from steindamm.demo.valkey import HOST, start_valkey

START_SECONDS = 60.0
TICK = 0.1
STALL_SECONDS = 15.0
STALL_STARTS = 5


def run_demo(plan: Plan, interruption: Interruption) -> bool:
    """Start everything, watch the jobs, end everything, report.

    Returns:
        Whether the run went as it should.
    """
    console = Console(highlight=False)
    with (
        display_for(console, plan) as display,
        TemporaryDirectory(prefix="steindamm-demo-", ignore_cleanup_errors=True) as folder,
        Processes(Path(folder), interruption) as processes,
    ):
        try:
            progress = Stage(plan, display, processes, interruption, Path(folder)).watch()
        except Exception:
            interruption.sleep(LOOK)
            processes.check()
            raise
        finally:
            display.step("stopping")
    report(console, progress)
    return progress.good


class Stage:
    """What one run works with."""

    def __init__(
        self, plan: Plan, display: Display, processes: Processes, interruption: Interruption, folder: Path
    ) -> None:
        self._plan = plan
        self._display = display
        self._processes = processes
        self._interruption = interruption
        self._setup = self._start_servers(folder)
        self._queue = load(plan.queue, self._setup)
        self._start_workers()

    def _start_servers(self, folder: Path) -> Setup:
        self._display.step("starting Valkey")
        valkey = start_valkey(self._processes, folder, self._interruption)
        self._display.step("starting the API")
        return Setup(valkey, self._start_api(), self._plan.limit_text if self._plan.throttled else None)

    def _start_api(self) -> str:
        with socket.create_server((HOST, 0), backlog=1024) as listener:
            fd, port = listener.fileno(), listener.getsockname()[1]
            allowed = ["--per-second", str(1 / self._plan.limit.spacing), "--burst", str(self._plan.burst)]
            command = [sys.executable, "-m", "steindamm.demo.api", "--fd", str(fd), *allowed]
            self._processes.start("api", command, pass_fds=[fd])
        url = f"http://{HOST}:{port}"
        self._wait_for("the API", lambda: _answers(url))
        return url

    def _start_workers(self) -> None:
        self._display.step(f"starting {workers_text(self._plan)}")
        for number in range(1, self._plan.workers + 1):
            self._processes.start(f"worker {number}", self._queue.worker_command(number))
        self._wait_for("the workers", lambda: workers_ready(self._setup.valkey) >= self._plan.workers)

    def _wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            self._processes.check()
            if time.monotonic() > end:
                raise DemoError(f"{what} did not get ready in {START_SECONDS:g} s")
            self._interruption.sleep(LOOK)

    def watch(self) -> Progress:
        """Send the jobs and look on until all are done, or nothing has moved for long."""
        self._display.step(f"sending {self._plan.jobs} jobs")
        progress = Progress(self._plan)
        moved = time.monotonic()
        while not progress.complete and time.monotonic() < moved + self._patience:
            before = progress.sent, progress.done, len(progress.calls)
            self._send_for(TICK, progress)
            self._look(progress)
            self._display.show(progress)
            if before != (progress.sent, progress.done, len(progress.calls)):
                moved = time.monotonic()
        return progress

    @property
    def _patience(self) -> float:
        return STALL_SECONDS + STALL_STARTS * self._plan.limit.spacing

    def _send_for(self, seconds: float, progress: Progress) -> None:
        end = time.monotonic() + seconds
        while progress.sent < self._plan.jobs and time.monotonic() < end:
            self._interruption.check()
            self._queue.send(progress.sent)
            progress.sent += 1
        self._interruption.sleep(max(0.0, end - time.monotonic()))

    def _look(self, progress: Progress) -> None:
        """Results first: a job whose result is there has called the API before."""
        self._processes.check()
        progress.results += self._queue.results()
        progress.now, calls = read_log(self._setup.api, start=len(progress.calls))
        progress.calls += calls


def _answers(url: str) -> bool:
    try:
        read_log(url, timeout=1.0)
    except OSError:
        return False
    return True
