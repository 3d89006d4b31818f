"""What everybody did, a line an event, in a file for each process: it outlives whatever is killed.

All processes are on one machine, so the monotonic clock is the same for all of them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple


class Event(NamedTuple):
    """One thing that happened.

    Parameters:
        at: When, in seconds on the machine's monotonic clock.
        what: Of calls ``asks``, ``start``, ``end``, ``lost`` (the lease), ``told`` (that the limiter is unavailable),
            ``surprise`` (another error); of jobs ``taken``, ``deferred``, ``sent`` (to the queue, which has it now),
            ``cut``; of processes ``ready``, ``killed``, ``stopped``, ``ended`` (by themselves); of a fault ``begins``,
            ``over``.
        who: The call, or the job.
        pid: The process in which it happened, or which it happened to.
        more: An error's name.
    """

    at: float
    what: str
    who: str
    pid: int
    more: str


class Journal:
    """Written by any number of processes, each to a file of its own; read by the one that checks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = -1
        self._pid = 0

    def write(self, what: str, who: str = "", more: str = "", pid: int = 0) -> None:
        """Write a line; the kernel has it when this returns."""
        mine = os.getpid()
        if self._pid != mine:
            self._file = os.open(self.folder / f"{mine}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._pid = mine
        fields = f"{time.monotonic():.6f}", what, who, str(pid or mine), more.replace("\t", " ").replace("\n", " ")
        os.write(self._file, ("\t".join(fields) + "\n").encode())

    def events(self) -> list[Event]:
        """All that was written, in order."""
        lines = (line for file in self.folder.glob("*.journal") for line in file.read_text().splitlines())
        fields = (line.split("\t") for line in lines)
        return sorted(Event(float(at), what, who, int(pid), more) for at, what, who, pid, more in fields)
