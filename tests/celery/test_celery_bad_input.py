"""What is wrong with a task is said when it is made; what is wrong for one job fails that job, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from support.celery_workers import PATIENCE

from steindamm import AsyncSemaphore, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.integrations.celery import RateLimitedTask


def make(**options: Any) -> Any:
    app = Celery("bad")

    @app.task(base=RateLimitedTask, lazy=False, shared=False, **options)
    def task() -> None: ...

    return task


@pytest.mark.parametrize("nonsense", [42, "100/s", SyncTokenBucket, object()])
def test_a_limiter_that_is_none_is_refused_when_the_task_is_made(nonsense: object) -> None:
    with pytest.raises(TypeError, match="limiter must be a limiter, or a function"):
        make(limiter=nonsense)


@pytest.mark.parametrize("kind", [AsyncTokenBucket, AsyncSemaphore])
def test_an_async_limiter_is_refused_and_its_sync_twin_named(kind: type) -> None:
    twin = kind.__name__.replace("Async", "Sync")
    with pytest.raises(TypeError, match=rf"limiter must be a {twin}\w* here|limiter must be a Sync\w+ here"):
        make(limiter=kind("twin"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_sleep": -1}, ValueError, "max_sleep"),
        ({"max_sleep": "soon"}, TypeError, "max_sleep"),
        ({"max_deferral": float("nan")}, ValueError, "max_deferral"),
        ({"cost": 1}, TypeError, "cost needs a limiter"),
        ({"limiter": SyncTokenBucket("small", capacity=2), "cost": 3}, ValueError, "cost"),
        ({"limiter": SyncSemaphore("slots"), "cost": 2}, TypeError, "cost must be left out"),
    ],
)
def test_a_wrong_setting_is_refused_when_the_task_is_made(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("kind", "cost", "error"),
    [
        ("raises", 1, "LookupError"),
        ("nonsense", 1, "TypeError"),
        ("fine", "raises", "LookupError"),
        ("fine", "much", "TypeError"),
        ("fine", -1, "ValueError"),
        ("fine", 1000, "ValueError"),
        ("unpicklable", 1, "Unpick"),
    ],
)
def test_a_function_that_fails_for_a_job_fails_that_job(
    farm: Any, label: str, kind: str, cost: Any, error: str
) -> None:
    """The task's hook, the errback and the result all tell of it."""
    before = len(farm.journal("failed"))
    job = farm.send("odd", kind, cost, link_error=farm.signature("note", label))
    failure = job.get(timeout=PATIENCE, propagate=False)
    assert error in f"{type(failure).__name__}: {failure}"
    assert job.state == "FAILURE"
    assert farm.wait_for("noted", label)
    [failed] = farm.wait_for("failed", count=before + 1)[before:]
    assert error in failed.more[0]
    assert farm.send("odd", "fine").get(timeout=PATIENCE) == "fine"


def test_a_job_that_failed_at_the_gate_can_be_retried(farm: Any) -> None:
    job = farm.send("odd_retried", "raises")
    with pytest.raises(LookupError, match="no such customer"):
        job.get(timeout=PATIENCE)
    assert job.state == "FAILURE"
    assert farm.deliveries("odd_retried") == 2


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        {"limiter": 3, "turn": "soon", "since": [], "until": {}, "deferrals": -1},
        {"passed": {}, "failure": "LookupError"},
        {"turn": 1e300, "since": -5, "deferrals": 10**30, "limiter": "forged"},
    ],
)
def test_a_forged_header_gains_no_start(farm: Any, label: str, header: object) -> None:
    limit = [label, "1/h", 1]
    assert farm.send("work", limit, f"{label} first").get(timeout=PATIENCE)
    farm.send("work", limit, f"{label} forged", headers={"steindamm": header})
    farm.send("ungated", limit, f"{label} forged", headers={"steindamm": header})
    farm.wait_until_logged(f"limiter '{label}'", 2)
    assert [entry.job for entry in farm.journal("start", label)] == [f"{label} first"]


@pytest.mark.parametrize("task", ["work", "ungated"])
@pytest.mark.parametrize("value", ["nonsense", [1], {"steindamm": 5}])
def test_a_header_named_headers_is_one_like_others(farm: Any, label: str, task: str, value: object) -> None:
    job = farm.send(task, [label, "100/s", 1], label, headers={"headers": value})
    assert job.get(timeout=PATIENCE) == label
    assert all(worker.is_alive for worker in farm.workers)
