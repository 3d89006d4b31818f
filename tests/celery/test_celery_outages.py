"""The limiters' server is away: jobs are held and then run, nothing fails, and nobody else waits."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.celery_workers import PATIENCE, Farm
from support.servers import Server


@pytest.fixture(scope="module")
def outages(make_farm: Callable[..., Farm]) -> Iterator[Farm]:
    """A worker that was started while the limiters' server was away."""
    farm = make_farm(limits_elsewhere=True)
    farm.limits.kill()
    farm.start()
    yield farm
    [worker] = farm.workers
    assert worker.end() == 0
    assert worker.says("Traceback") == worker.says("raised unexpected")


@pytest.fixture
def limits(outages: Farm) -> Iterator[Server]:
    """The limiters' server, there again after each test."""
    server = outages.limits
    yield server
    if server.process.poll() is None:
        server.signal(signal.SIGCONT)
    else:
        server.start()


def labels(label: str, count: int) -> list[str]:
    return [f"{label} {number}" for number in range(count)]


def send_and_let_others_pass(farm: Farm, label: str, limits: list[list[Any]]) -> None:
    """Send ten jobs for each limit, and see unlimited ones pass."""
    for limit in limits:
        for name in labels(label, 10):
            farm.send("work", limit, name)
    for name in labels(label, 5):
        farm.send("unlimited", name)
    farm.wait_for("unlimited", label, count=5)
    assert farm.journal("start", label) == []


def test_a_worker_that_starts_without_the_server_holds_jobs_until_it_is_there(
    outages: Farm, limits: Server, label: str
) -> None:
    send_and_let_others_pass(outages, label, [[f"{label} rate", "50/s", 1], [f"{label} slot", 1, 60.0]])
    limits.start()
    outages.wait_for("end", label, count=20)
    assert sorted(start.job for start in outages.journal("start", label)) == sorted(2 * labels(label, 10))
    assert {start.more[0] for start in outages.journal("start", label)} == {"0"}


def test_jobs_are_held_while_the_server_stands_still(outages: Farm, limits: Server, label: str) -> None:
    for kind in ([f"{label} rate", "50/s", 1], [f"{label} slot", 1, 60.0]):
        outages.send("work", kind, "before").get(timeout=PATIENCE)
    limits.signal(signal.SIGSTOP)
    send_and_let_others_pass(outages, label, [[f"{label} rate", "50/s", 1], [f"{label} slot", 1, 60.0]])
    limits.signal(signal.SIGCONT)
    outages.wait_for("end", label, count=20)
    assert sorted(start.job for start in outages.journal("start", label)) == sorted(2 * labels(label, 10))


def test_a_slot_that_could_not_be_given_back_comes_back_with_the_server(
    outages: Farm, limits: Server, label: str
) -> None:
    outages.send("work", [label, 1, 60.0], f"{label} holder", "sleep", 0.5)
    outages.wait_for("start", f"{label} holder")
    limits.signal(signal.SIGSTOP)
    outages.wait_for("end", f"{label} holder")
    outages.send("work", [label, 1, 60.0], f"{label} next")
    send_and_let_others_pass(outages, f"others {label}", [])
    limits.signal(signal.SIGCONT)
    outages.wait_for("end", f"{label} next")


def test_jobs_that_wait_outlast_a_server_that_loses_its_memory(outages: Farm, limits: Server, label: str) -> None:
    early, late = labels(label, 20), labels(f"{label} late", 5)
    for name in early:
        outages.send("work", [label, "10/s", 1], name)
    outages.wait_for("start", label, count=3)
    limits.kill()
    for name in late:
        outages.send("work", [label, "10/s", 1], name)
    outages.send("unlimited", label)
    outages.wait_for("unlimited", label)
    limits.start()
    outages.wait_for("end", label, count=25)
    assert sorted(start.job for start in outages.journal("start", label)) == sorted(early + late)


def test_jobs_run_without_the_server_where_their_limiter_lets_them(outages: Farm, limits: Server, label: str) -> None:
    """Those that stood in line when it died, and those that come later; the slot that it gave is given back."""
    outages.send("work_without", "slot", f"{label} holder", "sleep", 1)
    outages.wait_for("start", f"{label} holder")
    in_line = labels(f"{label} in line", 3)
    for name in in_line:
        outages.send("work_without", "slot", name)
    limits.kill()
    later = labels(f"{label} later", 5)
    for name in later:
        for kind in ("slot", "rate"):
            outages.send("work_without", kind, name)
    outages.wait_for("end", label, count=14)
    starts = sorted(start.job for start in outages.journal("start", label))
    assert starts == sorted([f"{label} holder", *in_line, *later, *later])


def test_a_job_that_may_not_wait_that_long_fails_while_the_server_is_away(
    outages: Farm, limits: Server, label: str
) -> None:
    limits.kill()
    job = outages.send("work_or_give_up", [label, "10/s", 1], label)
    error = job.get(timeout=PATIENCE, propagate=False)
    assert type(error).__name__ == "MaxSleepExceededError"
    assert outages.journal("start", label) == []
