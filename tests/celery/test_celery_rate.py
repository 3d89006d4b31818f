"""A rate that two workers share, measured at what their jobs call."""

from __future__ import annotations

import time
from typing import Any

from support.celery_workers import most_in

RATE, CAPACITY, JOBS = 50, 5, 400
JITTER = 0.1
"""Seconds by which a loaded machine may run a job later than the limiter said."""


def test_400_jobs_on_two_workers_keep_to_the_rate_and_hold_up_nobody_else(farm: Any, label: str) -> None:
    calls_before = farm.admin.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    started = farm.now()
    for job in range(JOBS):
        farm.send("call_api", job)
    for number in range(5):
        farm.send("work", [f"own {label}", "20/s"], f"{label} {number}", "retry")
    waits = []
    for number in range(10):
        sent = farm.now()
        farm.send("unlimited", f"{label} {number}")
        waits.append(farm.wait_for("unlimited", f"{label} {number}")[0].at - sent)
        time.sleep(0.1)
    calls = farm.wait_for("call", count=JOBS)
    assert sorted(int(call.job) for call in calls) == list(range(JOBS))
    assert {call.more[0] for call in calls} == {"0"}
    moments = [call.at for call in calls]
    ideal = (JOBS - CAPACITY) / RATE
    assert most_in(1 - JITTER, moments) <= CAPACITY + RATE
    assert ideal * 0.98 <= max(moments) - started <= ideal * 2
    assert farm.deliveries("call_api") == JOBS
    assert sorted(waits)[len(waits) // 2] < 1
    retries = sorted(start.more[0] for start in farm.wait_for("end", label, count=5) and farm.journal("start", label))
    assert retries == ["0"] * 5 + ["1"] * 5
    script_calls = farm.admin.info("commandstats")["cmdstat_evalsha"]["calls"] - calls_before
    assert script_calls <= 2.2 * (JOBS + 10)
