"""Jobs that call an API which allows half of what their limit says, and tells who is beyond when to come back."""

from __future__ import annotations

import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmarks.jobs import journal

API = "STEINDAMM_BENCH_API"
OURS, THEIRS, BURST, RETRY_AFTER = 50, 25, 5, 2
"""Calls a second that we think we may make; those that the API allows, and at once; seconds that it asks for."""
LIMIT: dict[str, Any] = {"capacity": 1, "refill_frequency": 1 / OURS, "connection": journal.URL}
ADAPTING, STEADY = {**LIMIT, "name": "adapting", "adapt": True}, {**LIMIT, "name": "steady"}
NOT_NOW = HTTPError
"""The error of the HTTP client."""


def call(number: int, retries: int) -> None:
    """Call the API, and note a call that was answered."""
    with urlopen(f"{os.environ[API]}/call/{number}", timeout=30) as answer:
        answer.read()
    journal.note(journal.RAN, f"{number} {retries}")


def retry_after(error: HTTPError) -> float:
    """What people read from an error by hand."""
    return float(error.headers["Retry-After"])
