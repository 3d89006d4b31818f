"""Celery's jobs that are limited by several limits at once."""

from __future__ import annotations

from typing import Any

from support.celery_workers import most_in

JITTER = 0.1
"""Seconds by which a loaded machine may run a job later than the limiter said."""


def test_jobs_keep_to_all_of_their_limits_and_run_once_each(farm: Any, label: str) -> None:
    limits = [[f"{label} rate", "20/s"], [f"{label} wide", "100/s"], [f"{label} slots", 2]]
    for job in range(30):
        farm.send("work", limits, f"{label} {job}", "return", 0.05)
    ends = farm.wait_for("end", label, count=30)
    starts = farm.journal("start", label)
    assert len(starts) == 30
    assert {start.more[0] for start in starts} == {"0"}
    assert most_in(1 - JITTER, [start.at for start in starts]) <= 21
    moments = sorted([(start.at, 1) for start in starts] + [(end.at, -1) for end in ends])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most <= 2


def test_a_slot_of_several_limits_comes_back_whatever_the_job_does(farm: Any, label: str) -> None:
    limits = [[f"{label} rate", "50/s"], [f"{label} slots", 1]]
    for job, how in enumerate(("raise", "retry", "return")):
        farm.send("work", limits, f"{label} {job}", how)
    ends = farm.wait_for("end", label, count=2)
    starts = farm.wait_for("start", label, count=4)
    assert sorted(end.job for end in ends) == [f"{label} 1", f"{label} 2"]
    assert sorted(start.job for start in starts) == [f"{label} {job}" for job in (0, 1, 1, 2)]
