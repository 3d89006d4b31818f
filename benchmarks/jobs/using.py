"""Jobs that use a model which is paid by the token: each takes an estimate, and settles what it used."""

from __future__ import annotations

import random
import time
from typing import Any

from benchmarks.jobs import journal

PER_SECOND, ESTIMATE, SPREAD, WORK = 40_000, 1_000, 0.5, 0.05
"""Tokens a second; those that a job is thought to use; how far it may be off; seconds that it takes."""
MODEL: dict[str, Any] = {
    "name": "model", "capacity": 4_000, "refill_amount": PER_SECOND / 1_000, "refill_frequency": 1e-3,
    "tokens_to_consume": ESTIMATE, "connection": journal.URL,
}  # fmt: skip


def use() -> float:
    """Use the model; the tokens that it took."""
    time.sleep(WORK)
    return round(ESTIMATE * random.uniform(1 - SPREAD, 1 + SPREAD))


def note(used: float) -> None:
    journal.note(journal.RAN, f"{used}")
