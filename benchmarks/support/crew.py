"""Contenders, each in processes of its own, so that none shares an interpreter, a lock or a garbage collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PUBLISHED = os.environ.get("STEINDAMM_BENCH_PUBLISHED")
"""A folder that holds the published library of our name; without it, its rows are left out."""
HEAD_START = 0.05
"""Seconds in which all processes of a contender get an order before they carry it out together."""


@dataclass(frozen=True)
class Contender:
    """One row of a table.

    Parameters:
        name: What the row is called.
        place: The function that makes its limiter, as in ``"peers.limits:fixed_window"``.
        arguments: What that function is called with, beside the server's URL.
        is_published: Whether it is the published library of our name.
    """

    name: str
    place: str
    arguments: dict[str, Any] = field(default_factory=dict)
    is_published: bool = False


class Worker:
    """One process of a contender."""

    def __init__(self, contender: Contender, arguments: dict[str, Any]) -> None:
        paths = [PUBLISHED, str(ROOT)] if contender.is_published and PUBLISHED else [str(ROOT)]
        command = [sys.executable, "-P", "-m", "benchmarks.worker", contender.place, json.dumps(arguments)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._name = contender.name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def order(self, **order: Any) -> None:
        assert self._process.stdin
        print(json.dumps(order), file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self._name!r} has ended; its error stands above")
        return json.loads(line)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Crew:
    """All processes of one contender.

    Parameters:
        contender: Who it is.
        size: How many processes.
        common: Arguments that all contenders get.
    """

    def __init__(self, contender: Contender, size: int, common: dict[str, Any]) -> None:
        self.name = contender.name
        self._workers = [Worker(contender, {**common, **contender.arguments}) for _ in range(size)]
        for worker in self._workers:
            worker.answer()

    def calls(self, times: int, clock: str = "perf_counter") -> float:
        """Seconds for so many uses, one after the other, in one process."""
        self._workers[0].order(what="calls", times=times, clock=clock)
        return float(self._workers[0].answer())

    def throughput(self, count: int, seconds: float) -> float:
        """Uses a second of all processes, each with so many threads or tasks."""
        return sum(sum(done) for done in self._all(what="until", count=count, seconds=seconds)) / seconds

    def record(self, count: int, seconds: float, hold: float = 0.0) -> list[list[tuple[float, float]]]:
        """When the uses of each thread or task of each process began and ended."""
        answers = self._all(what="record", count=count, seconds=seconds, hold=hold)
        return [[(began, ended) for began, ended in one] for answer in answers for one in answer]

    def _all(self, **order: Any) -> list[Any]:
        start = time.monotonic() + HEAD_START
        for worker in self._workers:
            worker.order(**order, start=start)
        return [worker.answer() for worker in self._workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()


@contextmanager
def crews(contenders: Sequence[Contender], size: int = 1, **common: Any) -> Iterator[list[Crew]]:
    """The processes of all contenders that can take part."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Crew(contender, size, common))
            for contender in contenders
            if PUBLISHED or not contender.is_published
        ]
