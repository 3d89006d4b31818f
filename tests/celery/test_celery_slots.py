"""Slots that two workers share: never more jobs at once than there are slots, however a job ends."""

from __future__ import annotations

from typing import Any

import pytest
from support.celery_workers import Entry
from support.standing_still import check_missed_start

ENDINGS: dict[str, dict[str, float]] = {
    "return": {},
    "raise": {},
    "feign a time limit": {},
    "soft limit": {"soft_time_limit": 0.5},
    "hard limit": {"time_limit": 0.5},
    "be killed": {},
    "revoke": {},
}
LONG = 30.0
LEASE = 60.0
"""Far longer than a test takes: a slot that comes back was given back."""


def most_at_once(begun: list[Entry], ended: list[Entry]) -> int:
    running = most = 0
    for _, change in sorted([(entry.at, 1) for entry in begun] + [(entry.at, -1) for entry in ended]):
        running += change
        most = max(most, running)
    return most


def test_60_jobs_use_three_slots_and_never_a_fourth(farm: Any) -> None:
    for job in range(60):
        farm.send("hold_slot", job)
    ended = farm.wait_for("out", count=60)
    begun = farm.journal("in")
    assert sorted(int(entry.job) for entry in begun) == list(range(60))
    assert most_at_once(begun, ended) == 3
    assert farm.deliveries("hold_slot") == 60


@pytest.fixture(scope="module")
def endings(farm: Any) -> dict[str, tuple[float, float]]:
    """For each way to end: when the job was last seen, and when the next one got its only slot, by one clock."""
    bodies = {"soft limit": "sleep", "hard limit": "cling", "revoke": "cling"}
    for how, options in ENDINGS.items():
        body = bodies.get(how, how)
        seconds = LONG if how in bodies else 0.2
        first = farm.send("work", [f"slot, {how}", 1, LEASE], f"first, {how}", body, seconds, **options)
        farm.wait_for("start", f"first, {how}")
        farm.send("work", [f"slot, {how}", 1, LEASE], f"second, {how}")
        if how == "revoke":
            farm.app.control.revoke(first.id, terminate=True, signal="SIGKILL")
    return {how: (last_seen(farm, f"first, {how}"), farm.wait_for("start", f"second, {how}")[0].at) for how in ENDINGS}


def last_seen(farm: Any, label: str) -> float:
    return max(entry.at for what in ("start", "alive", "soft limit", "end") for entry in farm.journal(what, label))


@pytest.mark.parametrize("how", ENDINGS)
def test_a_slot_comes_back_when_its_job_has_ended_and_not_before(
    endings: dict[str, tuple[float, float]], how: str
) -> None:
    seen, next_start = endings[how]
    assert seen < next_start


def test_a_retry_gives_the_slot_back_and_waits_for_one_like_all_others(farm: Any, label: str) -> None:
    farm.send("work", [label, 1, LEASE], label, "retry")
    farm.wait_for("end", label)
    farm.send("work", [label, 1, LEASE], f"{label} next")
    assert [start.more[0] for start in farm.journal("start", label)] == ["0", "1"]
    assert farm.wait_for("end", f"{label} next")


def test_a_job_that_was_let_start_before_its_worker_stood_still_waits_for_a_slot_again(farm: Any) -> None:
    farm.send("hold_only_slot")
    check_missed_start(farm.limits.url, "only", lambda: len(farm.journal("has the only slot")))
