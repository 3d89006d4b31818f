"""The limits of all jobs, one bucket and one semaphore for each round, and how jobs write down what they do."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from chaos.journal import Journal
from steindamm import MaxSleepExceededError, current_permit

RATE, CAPACITY = 100.0, 10
SLOTS, LEASE, HOLDS = 4, 3.0, 0.05
"""How many hold a slot, for how many seconds without renewal, and for how many they hold it."""
AGAIN = 0.05
"""Seconds after which a job that is always sent back comes again."""

BROKER = os.environ.get("CHAOS_BROKER", "redis://")
LIMITS = os.environ.get("CHAOS_LIMITS", "redis://")
journal = Journal(Path(os.environ.get("CHAOS_JOURNAL", "")))


def terms_of(kind: str, round_: int) -> dict[str, Any]:
    """The settings of the limit of one kind of job in one round."""
    name = f"{kind} {round_}"
    if kind == "again":
        return {"name": name, "capacity": 1_000_000}
    if kind == "rate":
        return {"name": name, "capacity": CAPACITY, "refill_frequency": 1 / RATE}
    return {"name": name, "capacity": SLOTS, "expiry": LEASE}


def begin(kind: str, who: str) -> None:
    """What each job does first.

    Raises:
        MaxSleepExceededError: The job is one of those that are always sent back.
    """
    if kind == "again":
        raise MaxSleepExceededError("again", AGAIN, 0.0)
    journal.write("start", who)


def how_it_ends(kind: str) -> str:
    """What the job that runs here writes when it has done its work: whether it has lost its slot meanwhile."""
    return "lost" if kind == "slot" and current_permit().lost else "end"


class Deferrals(logging.Handler):
    """Writes down which jobs are told to wait, from what the integrations log."""

    def emit(self, record: logging.LogRecord) -> None:
        if who := re.search(r"(rate|slot|again)-\d+-\d+", record.getMessage()):
            journal.write("deferred", who[0])


def note_deferrals(queue: str) -> None:
    """Write down the deferrals of a queue's integration from now on."""
    logger = logging.getLogger(f"steindamm.{queue}")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Deferrals())
