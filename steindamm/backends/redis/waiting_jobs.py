"""An index, for people, of the jobs that wait: which limiter for, until when, in which place.

Whoever defers a job takes a note of it, which costs no call: notes are gathered for a moment, and then written
together. What can't be written is lost, and nothing else: no decision reads the index.

Two kinds of keys, which end with the turns that they tell of: ``steindamm:waiting:<job>`` names the limiter, and beside
each limiter there are its jobs, by their turns.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock, Thread
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from steindamm.backends.redis.scripts import Script, jobs_note_script
from steindamm.backends.terms import MICROSECONDS
from steindamm.clock import monotonic
from steindamm.forks import begin_anew_in_child

if TYPE_CHECKING:
    from steindamm.backends.redis.links import AsyncLink, SyncLink

logger = logging.getLogger("steindamm")

GATHERING = 0.5
"""Seconds for which notes are gathered."""
MOST = 10_000
"""Notes that are gathered; what is beyond is not noted."""
AT_ONCE = 500
"""Jobs that a script is told of at once."""
GRACE = 60.0
"""Seconds after its turn for which a job is remembered: it may wait for a worker then."""
UNTOLD = 3_600.0
"""Seconds for which a job is remembered that was told no turn."""
LONGEST_ID = 500
"""Characters; a job with a longer id is not noted."""


class Line(NamedTuple):
    """Where jobs stand in line.

    Parameters:
        kind: ``"bucket"`` or ``"semaphore"``.
        key: What the limiter's keys have in common.
    """

    kind: str
    key: str

    @property
    def keys(self) -> tuple[str, str]:
        """Of the scripts: the limiter's jobs, and its state."""
        state = f"steindamm:{self.key}:{self.kind}"
        return f"{state}:jobs", state


class Note(NamedTuple):
    """What is noted of a job.

    Parameters:
        limiter: The name of the limiter that it waits for; None where it waits no more.
        wait: Seconds from now; None where nobody can tell.
        line: Where it stands; None where it has no place.
        turn: Its turn at a bucket, in microseconds.
        left: Where it stands no more.
    """

    limiter: str | None
    wait: float | None = None
    line: Line | None = None
    turn: float = 0.0
    left: Sequence[Line] = ()


class Notes:
    """Those that are gathered, with the moment at which each was taken."""

    def __init__(self) -> None:
        self._gathered: dict[str, tuple[float, Note]] = {}

    def _add(self, job: str, note: Note) -> None:
        if len(self._gathered) < MOST and len(job) <= LONGEST_ID:
            self._gathered[job] = monotonic(), note

    def _collect(self) -> dict[str, tuple[float, Note]]:
        gathered, self._gathered = self._gathered, {}
        return gathered


class SyncNotes(Notes):
    """Written by a thread of their own, which ends when there are none.

    Parameters:
        link: Where to.
    """

    def __init__(self, link: SyncLink) -> None:
        self._link = link
        self.begin()
        begin_anew_in_child(self)

    def begin(self) -> None:
        """Be as if new."""
        super().__init__()
        self._lock = Lock()
        self._thread: Thread | None = None

    def take(self, job: str, note: Note) -> None:
        """Note something of a job, soon."""
        with self._lock:
            self._add(job, note)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="steindamm-notes", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            sleep(GATHERING)
            with self._lock:
                gathered = self._collect()
                if not gathered:
                    self._thread = None
                    return
            try:
                self._write(gathered)
            except Exception as error:  # noqa: BLE001
                logger.debug("%d notes of waiting jobs are lost: %r", len(gathered), error)

    def _write(self, gathered: Mapping[str, tuple[float, Note]]) -> None:
        calls = list(lines(gathered))
        pipeline: Any = self._link.client.pipeline(transaction=False)
        fill(pipeline, calls, gathered)
        for call in unknown(calls, pipeline.execute(raise_on_error=False)):
            self._link.run(*call)


class AsyncNotes(Notes):
    """Written by a task.

    Parameters:
        link: Where to.
    """

    def __init__(self, link: AsyncLink) -> None:
        super().__init__()
        self._link = link
        self._task: asyncio.Task[None] | None = None

    def take(self, job: str, note: Note) -> None:
        """Note something of a job, soon."""
        self._add(job, note)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                await asyncio.sleep(GATHERING)
                gathered = self._collect()
                if not gathered:
                    return
                try:
                    await self._write(gathered)
                except Exception as error:  # noqa: BLE001
                    logger.debug("%d notes of waiting jobs are lost: %r", len(gathered), error)
        finally:
            self._task = None

    async def _write(self, gathered: Mapping[str, tuple[float, Note]]) -> None:
        calls = list(lines(gathered))
        pipeline: Any = self._link.client.pipeline(transaction=False)
        fill(pipeline, calls, gathered)
        for call in unknown(calls, await pipeline.execute(raise_on_error=False)):
            await self._link.run(*call)


class Call(NamedTuple):
    """A call of the script that notes which jobs wait, in the words of a link."""

    name: str
    script: Script
    keys: tuple[str, str]
    args: list[object]
    length: int = 1


def lines(gathered: Mapping[str, tuple[float, Note]]) -> Iterator[Call]:
    """What the script is told of each line."""
    told: dict[Line, list[object]] = defaultdict(list)
    now = monotonic()
    for job, (taken_at, note) in gathered.items():
        for line in note.left:
            told[line] += job, ""
        if note.line is not None:
            waits = ((note.wait or 0.0) - (now - taken_at)) * MICROSECONDS
            told[note.line] += job, note.turn if note.line.kind == "bucket" else waits
    for line, jobs in told.items():
        for first in range(0, len(jobs), 2 * AT_ONCE):
            args = [line.kind, GRACE * MICROSECONDS, *jobs[first : first + 2 * AT_ONCE]]
            yield Call(line.key, jobs_note_script(), line.keys, args)


def fill(pipeline: Any, calls: Sequence[Call], gathered: Mapping[str, tuple[float, Note]]) -> None:
    """Put all that is to be written into a pipeline: the calls, and what names each job's limiter."""
    for call in calls:
        pipeline.execute_command("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)
    now = monotonic()
    for job, (taken_at, note) in gathered.items():
        if note.limiter is None:
            pipeline.delete(job_key(job))
            continue
        kept = UNTOLD if note.wait is None else max(0.0, note.wait - (now - taken_at))
        pipeline.set(job_key(job), written(note), px=round((kept + GRACE) * 1000))


def unknown(calls: Sequence[Call], replies: Sequence[object]) -> list[Call]:
    """Those calls whose server did not know the script."""
    return [call for call, reply in zip(calls, replies, strict=False) if type(reply).__name__ == "NoScriptError"]


def job_key(job: str) -> str:
    """The key of what names a job's limiter. No limiter's key begins so."""
    return f"steindamm:waiting:{job}"


def written(note: Note) -> str:
    """What names a job's limiter."""
    return json.dumps({"limiter": note.limiter, "is_told": note.wait is not None, "line": note.line})
