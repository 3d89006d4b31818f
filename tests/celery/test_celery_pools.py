"""Workers of every pool hold jobs in the same way; so do local limiters, and workers without an event loop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
from support.celery_workers import Farm, most_in

POOLS = ["prefork", "threads", "solo", *(["gevent"] if find_spec("gevent") else [])]
JOBS, RATE = 30, 20
JITTER = 0.2


@pytest.fixture(scope="module")
def pools(make_farm: Callable[..., Farm]) -> Iterator[Farm]:
    """A worker of each pool, with a queue of its own."""
    farm = make_farm(worker_prefetch_multiplier=1)
    for pool in POOLS:
        farm.start("-P", pool, queue=pool, concurrency=1 if pool == "solo" else 2, ready=False)
    farm.wait_until_ready()
    for pool in POOLS:
        farm.warm_up(queue=pool, jobs=5)
    yield farm
    assert all(worker.is_alive for worker in farm.workers)
    for worker in farm.workers:
        assert worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_keeps_to_a_rate(pools: Farm, label: str, pool: str) -> None:
    limit = [label, f"{RATE}/s", 1]
    for number in range(JOBS):
        pools.send("work", limit, f"{label} {number}", queue=pool)
    pools.send("unlimited", label, queue=pool)
    unlimited = pools.wait_for("unlimited", label)
    starts = pools.wait_for("end", label, count=JOBS) and pools.journal("start", label)
    assert len(starts) == len({start.job for start in starts}) == JOBS
    assert {start.more[0] for start in starts} == {"0"}
    moments = [start.at for start in starts]
    assert most_in(1 - JITTER, moments) <= RATE + 1
    assert unlimited[0].at < max(moments)


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_keeps_to_its_slots_and_starts_jobs_in_their_order(pools: Farm, label: str, pool: str) -> None:
    for number in range(8):
        pools.send("work", [label, 1, 60.0], f"{label} {number}", "sleep", 0.05, queue=pool)
    ends = pools.wait_for("end", label, count=8)
    starts = pools.journal("start", label)
    assert [start.job for start in starts] == [f"{label} {number}" for number in range(8)]
    assert all(end.at <= start.at for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_job_takes_its_token_only_when_it_can_start(pools: Farm, label: str, pool: str) -> None:
    """While all processes, or threads, are busy, jobs wait for them before the gate, so that none start in a bunch."""
    for number in range(2):
        pools.send("unlimited", f"{label} busy {number}", 1.0, queue=pool)
    pools.wait_for("unlimited", f"{label} busy", count=2)
    for number in range(4):
        pools.send("work", [label, "4/s", 1], f"{label} {number}", queue=pool)
    starts = [start.at for start in pools.wait_for("start", label, count=4)]
    assert max(starts) - min(starts) >= 3 / 4 * 0.7


@pytest.mark.parametrize("task", ["work_locally", "hold_locally"])
def test_a_local_limiter_holds_for_all_processes_of_a_worker(pools: Farm, label: str, task: str) -> None:
    for number in range(4):
        pools.send(task, f"{label} {number}", queue="prefork")
    ends = pools.wait_for("end", label, count=4)
    starts = pools.journal("start", label)
    if task == "work_locally":
        assert max(start.at for start in starts) - starts[0].at >= 3 / 5 * 0.9
    else:
        assert all(end.at <= start.at for end, start in zip(ends, starts[1:], strict=False))


@pytest.fixture(scope="module")
def without_loop(make_farm: Callable[..., Farm], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Workers whose broker is a folder, which no event loop can watch."""
    folder = str(tmp_path_factory.mktemp("queues"))
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    farm = make_farm(broker_url="filesystem://", broker_transport_options=options)
    for pool in ("prefork", "threads"):
        farm.start("-P", pool, queue=pool, concurrency=2, ready=False)
    farm.wait_until_ready()
    yield farm
    assert all(worker.is_alive for worker in farm.workers)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_broker_without_an_event_loop_will_do(without_loop: Farm, label: str, pool: str) -> None:
    farm = without_loop
    for number in range(6):
        farm.send("work", [f"{label} rate", "5/s", 1], f"{label} rate {number}", queue=pool)
        farm.send("work", [f"{label} slot", 1, 60.0], f"{label} slot {number}", "sleep", 0.05, queue=pool)
    ends = farm.wait_for("end", f"{label} slot", count=6)
    starts = farm.journal("start", f"{label} slot")
    assert all(end.at <= start.at for end, start in zip(ends, starts[1:], strict=False))
    moments = [start.at for start in farm.wait_for("start", f"{label} rate", count=6)]
    assert len(moments) == 6
    assert max(moments) - min(moments) >= 5 / 5 * 0.9
