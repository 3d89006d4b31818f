"""Processes that come and go, and connections: no job passes the gate before there is a process or thread for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.celery_workers import Farm

from steindamm import SyncSemaphore

PROCESSES = 2


@pytest.fixture(scope="module")
def changing(make_farm: Callable[..., Farm]) -> Iterator[Farm]:
    """A worker whose processes run one job each, one that is told to have more of them, and two that are cut off."""
    farm = make_farm()
    farm.start("--max-tasks-per-child", "1", queue="recycled", concurrency=PROCESSES, ready=False)
    farm.start(queue="growing", concurrency=PROCESSES, ready=False)
    for pool in ("prefork", "threads"):
        farm.start("-P", pool, queue=f"cut off {pool}", concurrency=PROCESSES, ready=False)
    farm.wait_until_ready()
    yield farm
    assert all(worker.is_alive for worker in farm.workers)


def held(farm: Farm, limit: list[Any]) -> int:
    name, capacity, _ = limit
    return SyncSemaphore(name, capacity=capacity, connection=farm.limits.url).state().held


def cut_off_workers(farm: Farm) -> None:
    """End the connections over which the workers wait for jobs."""
    for client in farm.admin.client_list():
        if client["cmd"] == "brpop":
            farm.admin.client_kill_filter(_id=client["id"])


def test_processes_that_are_replaced_let_no_job_take_a_slot_early(changing: Farm, label: str) -> None:
    limit = [label, 10, 60.0]
    for _ in range(4):
        changing.send("unlimited", label, 0.1, queue="recycled")
    for number in range(4):
        changing.send("work", limit, f"{label} {number}", "sleep", 0.5, queue="recycled")
    changing.wait_for("start", label, count=PROCESSES)
    assert held(changing, limit) <= PROCESSES
    starts = changing.wait_for("end", label, count=4) and changing.journal("start", label)
    assert len({start.more[1] for start in starts}) == 4


def test_a_new_process_lets_one_more_job_start(changing: Farm, label: str) -> None:
    """It takes the one that waits; who comes then has to wait."""
    limit, worker = [label, 10, 60.0], changing.workers[1]
    for number in range(PROCESSES + 1):
        changing.send("work", limit, f"{label} {number}", "sleep", 1.0, queue="growing")
    changing.wait_for("start", label, count=PROCESSES)
    changing.app.control.pool_grow(1, destination=[worker.name], reply=True)
    changing.send("work", limit, f"{label} more", queue="growing")
    worker.wait_until_it_says("received", PROCESSES + 2)
    changing.app.control.ping(destination=[worker.name], limit=1)
    assert held(changing, limit) <= PROCESSES + 1
    changing.wait_for("end", label, count=PROCESSES + 2)


@pytest.mark.parametrize(("pool", "number_of_worker"), [("prefork", 2), ("threads", 3)])
def test_a_connection_that_is_lost_frees_no_slot_of_a_job_that_runs_on(
    changing: Farm, label: str, pool: str, number_of_worker: int
) -> None:
    limit, worker, queue = [label, 10, 60.0], changing.workers[number_of_worker], f"cut off {pool}"
    connections = worker.says("Connected to")
    for number in range(PROCESSES):
        changing.send("work", limit, f"{label} {number}", "sleep", 2.5, queue=queue)
    changing.wait_for("start", label, count=PROCESSES)
    cut_off_workers(changing)
    worker.wait_until_it_says("Connected to", connections + 1)
    changing.send("work", limit, f"{label} more", queue=queue)
    worker.wait_until_it_says("received", PROCESSES + 1)
    assert held(changing, limit) <= PROCESSES
    changing.wait_for("end", label, count=PROCESSES + 1)
