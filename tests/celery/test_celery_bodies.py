"""Jobs whose own code meets a limiter that refuses: they are deferred, and keep their retries."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import CeleryError
from support.celery_workers import PATIENCE

from steindamm import MaxSleepExceededError, SyncTokenBucket

EVERY = 1.2


def taken(farm: Any, name: str, times: int) -> None:
    """Take so many turns of the limiter that the job's body meets."""
    limiter = SyncTokenBucket(name, capacity=1, refill_frequency=EVERY, max_sleep=0, connection=farm.limits.url)
    for _ in range(times):
        limiter.reserve()


@pytest.mark.parametrize("task", ["refused_inside", "refused_and_retried"])
def test_a_body_that_is_refused_twice_is_deferred_twice_and_then_done(farm: Any, label: str, task: str) -> None:
    """Its first two turns are given to others, in time before it comes back."""
    taken(farm, label, 1)
    job = farm.send(task, label, label, EVERY)
    farm.wait_for("entered", label)
    taken(farm, label, 1)
    assert job.get(timeout=PATIENCE) == label
    entered = farm.journal("entered", label)
    assert len(entered) == 3
    assert {entry.more[0] for entry in entered} == {"0"}
    assert [entry.more[0] for entry in farm.journal("passed", label)] == ["0"]


def test_a_body_that_is_refused_for_too_long_fails(farm: Any, label: str) -> None:
    taken(farm, label, 60)
    job = farm.send("refused_too_long", label, label, EVERY)
    with pytest.raises((MaxSleepExceededError, CeleryError)) as failure:
        job.get(timeout=PATIENCE)
    assert "MaxSleepExceededError" in type(failure.value).__name__
    assert farm.journal("passed", label) == []


def test_callbacks_of_a_body_that_was_refused_are_called_once(farm: Any, label: str) -> None:
    taken(farm, label, 1)
    job = farm.send("refused_inside", label, label, EVERY, link=farm.signature("note", label))
    assert job.get(timeout=PATIENCE) == label
    assert len(farm.wait_for("noted", label)) == 1


def test_a_job_that_goes_back_is_what_it_was(farm: Any, label: str) -> None:
    taken(farm, label, 1)
    options = {"expires": 300, "priority": 3, "time_limit": 50, "soft_time_limit": 40, "shadow": "known as"}
    job = farm.send("refused_inside", label, label, EVERY, headers={"tenant": "one"}, **options)
    assert job.get(timeout=PATIENCE) == label
    first, last = farm.journal("entered", label)
    assert first.more == last.more
    assert first.more[4:] == ["None", "[50, 40]", "one", "known as", "3"]
