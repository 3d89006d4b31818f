"""The demo with Dramatiq's workers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(find_spec("dramatiq.worker") is None, reason="Dramatiq is not installed here")

StartDemo = Callable[..., Any]


def measured(output: str, what: str) -> str:
    """What the table says of something."""
    match = re.search(rf"│ {what} +│ ([^│]*?) +│", output)
    assert match, output
    return match[1]


def test_throttled_jobs_are_all_done_once(demo: StartDemo) -> None:
    run = demo("dramatiq", "--jobs", "40", "--limit", "20/s")
    run.wait()
    assert "2 Dramatiq workers" in run.output, run.errors
    assert measured(run.output, "jobs done") == "40 of 40"
    assert measured(run.output, "jobs run twice") == "0"
    assert run.errors == ""


def test_a_signal_leaves_nothing(demo: StartDemo) -> None:
    run = demo("dramatiq", "--jobs", "5000", "--limit", "10/s", "--unthrottled")
    run.read_until("running")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 128 + signal.SIGINT
    assert run.processes() == []
    assert "Traceback" not in run.errors + run.output
