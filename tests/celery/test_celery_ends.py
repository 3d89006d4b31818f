"""Workers that end, are killed, or lose their broker: each job runs once, and no turn and no slot is lost."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from support.celery_workers import Farm, until
from support.processes import children_of

VISIBILITY = 6.0
LEASE = 2.0


@pytest.fixture(scope="module")
def fragile(make_farm: Callable[..., Farm]) -> Farm:
    """Workers of a broker that soon delivers again what nobody acknowledges: one worker is there to be killed."""
    options = {"visibility_timeout": VISIBILITY, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    farm = make_farm(broker_transport_options=options)
    for queue in ("celery", "celery", "killed"):
        farm.start(queue=queue, concurrency=2, ready=False)
    farm.wait_until_ready()
    farm.warm_up(jobs=10)
    return farm


def send_in_order(farm: Farm, limit: list[Any], label: str, count: int, queue: str = "celery") -> list[Any]:
    """Send jobs, each when the one before it has its turn."""
    jobs = []
    for name in names(label, count):
        jobs.append(farm.send("work", limit, name, queue=queue))
        wait_for_turn(farm, jobs[-1], name)
    return jobs


def wait_for_turn(farm: Farm, job: Any, name: str) -> None:
    until(lambda: turns_of(farm, job) or farm.journal("start", name), what=f"no turn for {name}")


def turns_of(farm: Farm, job: Any) -> list[float]:
    """The moments for which a job waited, each time that it was told one."""
    logged = re.compile(rf"\[([\d-]+ [\d:,]+): INFO/MainProcess\] .*{job.id}\] waits for its turn .*, in ([\d.]+)s")
    found = [line for worker in farm.workers for line in logged.findall(worker.log.read_text())]
    return [datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() + float(wait) for at, wait in found]


def has_heard_of_all(farm: Farm) -> bool:
    """Whether its one worker knows of the end of each job that it ran: a process tells it after it has logged that."""
    active = farm.app.control.inspect(limit=1).active()
    return active is not None and not any(active.values())


def names(label: str, count: int) -> list[str]:
    return [f"{label} {number}" for number in range(count)]


@pytest.fixture(scope="module")
def story(fragile: Farm) -> dict[str, float]:
    """Jobs wait for longer than the broker does, while a worker is killed that holds jobs and a slot."""
    farm = fragile
    send_in_order(farm, ["long", "1/3s", 1], "long", 4)
    farm.send("work", ["leased", 1, LEASE], "leased first", "sleep", 60.0, queue="killed")
    farm.wait_for("start", "leased first")
    farm.send("work", ["leased", 1, LEASE], "leased second")
    farm.wait_until_logged("limiter 'leased'")
    send_in_order(farm, ["lost", "1/2s", 1], "lost", 3, queue="killed")
    killed_at = farm.now()
    farm.workers[2].end(signal.SIGKILL)
    farm.start(queue="killed", concurrency=2)
    return {"killed at": killed_at}


def test_a_slot_of_a_killed_worker_comes_back_when_its_lease_ends_and_not_before(
    fragile: Farm, story: dict[str, float]
) -> None:
    [second] = fragile.wait_for("start", "leased second")
    assert second.at >= story["killed at"] + LEASE * 2 / 3 * 0.9


def test_jobs_that_a_killed_worker_held_are_delivered_again(fragile: Farm, story: dict[str, float]) -> None:
    starts = fragile.wait_for("start", "lost", count=3)
    assert sorted(start.job for start in starts) == names("lost", 3)


def test_a_job_that_waits_for_longer_than_its_broker_runs_once(fragile: Farm, story: dict[str, float]) -> None:
    starts = fragile.wait_for("start", "long", count=4)
    assert [start.job for start in starts] == names("long", 4)
    assert starts[-1].at - starts[0].at > VISIBILITY


def test_a_connection_that_is_lost_costs_no_job(fragile: Farm, story: dict[str, float], label: str) -> None:
    send_in_order(fragile, [label, "5/s", 1], label, 10)
    for kind in ("normal", "pubsub"):
        fragile.admin.client_kill_filter(_type=kind, skipme=True)
    fragile.wait_for("start", label, count=10)
    fragile.send("work", [f"{label} after", "5/s", 1], f"after {label}")
    fragile.wait_for("end", f"after {label}")
    assert sorted(start.job for start in fragile.journal("start", label)) == names(label, 10)
    assert all(worker.is_alive for worker in fragile.workers[:2])


def test_jobs_that_wait_outlive_a_worker_that_ends_and_keep_their_turns(
    fragile: Farm, story: dict[str, float], label: str
) -> None:
    """So does a slot, whether the worker that ends was about to run its job, or had just begun.

    A turn that comes while the worker ends is over when its job is back.
    """
    jobs = send_in_order(fragile, [label, "2/s", 1], label, 10)
    for name in ("first", "second"):
        fragile.send("work", [f"slot {label}", 1, 60.0], f"{name} {label}", "sleep", 0.5)
    ending, staying = fragile.workers[:2]
    assert ending.end() == 0
    ended_at = fragile.now()
    starts = fragile.wait_for("start", label, count=10)
    assert sorted(start.job for start in starts) == names(label, 10)
    turns = [those for job in jobs if (those := turns_of(fragile, job))]
    still_to_come = [those for those in turns if min(those) > ended_at]
    assert any(len(those) > 1 for those in still_to_come)
    assert all(max(those) - min(those) < 1 for those in still_to_come)
    assert len(fragile.wait_for("end", f"first {label}") + fragile.wait_for("end", f"second {label}")) == 2
    assert staying.is_alive


def test_a_job_on_its_way_to_a_pool_process_as_its_worker_ends_runs_once(
    make_farm: Callable[..., Farm], label: str
) -> None:
    """Nor does the process wait for half a minute for the worker to hear of it."""
    farm = make_farm()
    worker = farm.start(concurrency=1)
    farm.send("work", [label, "100/s", 2], f"before {label}").get(timeout=30)
    until(lambda: has_heard_of_all(farm), what="the worker has not heard of the end of its job")
    (process,) = children_of(worker.process.pid)
    os.kill(process, signal.SIGSTOP)
    farm.send("work", [label, "100/s", 2], label)
    worker.wait_until_it_says("received", count=2)
    time.sleep(1)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_until_it_says("Warm shutdown")
    time.sleep(1)
    os.kill(process, signal.SIGCONT)
    assert worker.process.wait(20) == 0
    assert len(farm.journal("end", label)) == 1
    assert (farm.admin.llen("celery"), farm.admin.hlen("unacked")) == (0, 0)
