"""What a monitor, such as Flower, makes of the events of a job that waits."""

from __future__ import annotations

import pytest
from celery.events.state import State

import steindamm.integrations.celery  # noqa: F401


def state_after(events: str) -> str:
    """The state of a job of which a monitor has heard so much."""
    monitor = State()
    for moment, event in enumerate(events.split(), start=1):
        when = dict.fromkeys(("clock", "timestamp", "local_received"), moment)
        monitor.event({"type": f"task-{event}", "uuid": "a job", "hostname": "a worker", **when})
    return str(monitor.tasks["a job"].state)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ("received throttled", "THROTTLED"),
        ("received throttled received", "THROTTLED"),
        ("received throttled started", "STARTED"),
        ("received throttled revoked", "REVOKED"),
        ("received throttled started retried received throttled", "THROTTLED"),
        ("received started received throttled", "THROTTLED"),
        ("received throttled started failed", "FAILURE"),
        ("received throttled started succeeded", "SUCCESS"),
    ],
)
def test_a_monitor_shows_what_a_job_has_come_to_last(events: str, state: str) -> None:
    assert state_after(events) == state
