"""The limits of the jobs: one that is in the way, and one that never is."""

from __future__ import annotations

from typing import Any

from benchmarks.jobs.journal import URL

RATE = 100
BACKLOG: dict[str, Any] = {
    "name": "backlog", "capacity": 10, "refill_frequency": 0.01, "refill_amount": 1, "connection": URL,
}  # fmt: skip
NEVER_REFUSING: dict[str, Any] = {"name": "open", "capacity": 1e6, "refill_amount": 1e6, "connection": URL}
