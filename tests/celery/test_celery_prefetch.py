"""What a worker fetches while it holds jobs: others pass, up to the number of jobs that it may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.celery_workers import Farm

HELD = 1_500
MOST_HELD = 8


@pytest.fixture(scope="module")
def frugal(make_farm: Callable[..., Farm]) -> Iterator[Farm]:
    """A worker that fetches one job at a time, acknowledges late, and one that may hold few jobs."""
    farm = make_farm(
        worker_prefetch_multiplier=1, task_acks_late=True, worker_disable_prefetch=True, task_annotations={}
    )
    few = make_farm(worker_prefetch_multiplier=1, worker_eta_task_limit=MOST_HELD)
    for one in (farm, few):
        one.start(concurrency=2, ready=False)
    for one in (farm, few):
        one.wait_until_ready()
    farm.few = few
    yield farm
    assert all(worker.is_alive for worker in [*farm.workers, *few.workers])


def test_late_acknowledgement_without_prefetch_holds_jobs_and_lets_others_pass(frugal: Farm, label: str) -> None:
    for number in range(20):
        frugal.send("work", [f"{label} rate", "10/s", 1], f"{label} rate {number}")
        frugal.send("work", [f"{label} slot", 1, 60.0], f"{label} slot {number}", "sleep", 0.02)
    frugal.send("unlimited", label)
    passed = frugal.wait_for("unlimited", label)[0].at
    ends = frugal.wait_for("end", label, count=40)
    assert len(frugal.journal("start", label)) == 40
    assert passed < max(end.at for end in ends)
    begun = frugal.journal("start", f"{label} slot")
    done = frugal.journal("end", f"{label} slot")
    assert all(end.at <= start.at for end, start in zip(done, begun[1:], strict=False))


def test_a_worker_that_holds_as_many_jobs_as_it_may_fetches_no_more(frugal: Farm, label: str) -> None:
    few = frugal.few
    for number in range(30):
        few.send("work", [label, "10/s", 1], f"{label} {number}")
    few.wait_until_logged(f"limiter '{label}'", MOST_HELD)
    assert few.admin.zcard("unacked_index") <= MOST_HELD + 4
    assert few.admin.llen("celery") > 0
    few.wait_for("end", label, count=30)
    assert len(few.journal("start", label)) == 30
    assert few.deliveries("work") == 30


def test_1500_jobs_that_wait_leave_the_worker_alive_and_others_on_time(frugal: Farm, label: str) -> None:
    for number in range(HELD):
        frugal.send("work", [label, "5/s", 1], f"{label} {number}")
    for _ in range(100):
        frugal.send("work", [f"slot {label}", 1, 60.0], f"slot {label}", "sleep", 60.0)
    frugal.wait_until_logged(f"{label}'", HELD + 90)
    frugal.send("unlimited", label)
    frugal.wait_for("unlimited", label)
    frugal.app.control.purge()
    assert frugal.says("Traceback") == 0
    assert frugal.workers[0].is_alive
