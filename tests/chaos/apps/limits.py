"""The limits of all jobs, one bucket and one semaphore for each round, and how jobs write down what they do."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from chaos.journal import Journal

RATE, CAPACITY = 100.0, 10
SLOTS, LEASE, HOLDS = 4, 3.0, 0.05
"""How many hold a slot, for how many seconds without renewal, and for how many they hold it."""

BROKER = os.environ.get("CHAOS_BROKER", "redis://")
LIMITS = os.environ.get("CHAOS_LIMITS", "redis://")
journal = Journal(Path(os.environ.get("CHAOS_JOURNAL", "")))


def terms_of(kind: str, round_: int) -> dict[str, Any]:
    """The settings of the limit of one kind of job in one round."""
    name = f"{kind} {round_}"
    if kind == "rate":
        return {"name": name, "capacity": CAPACITY, "refill_frequency": 1 / RATE}
    return {"name": name, "capacity": SLOTS, "expiry": LEASE}


class Deferrals(logging.Handler):
    """Writes down which jobs are told to wait, from what the integrations log."""

    def emit(self, record: logging.LogRecord) -> None:
        if who := re.search(r"(rate|slot)-\d+-\d+", record.getMessage()):
            journal.write("deferred", who[0])


def note_deferrals(queue: str) -> None:
    """Write down the deferrals of a queue's integration from now on."""
    logger = logging.getLogger(f"steindamm.{queue}")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Deferrals())
