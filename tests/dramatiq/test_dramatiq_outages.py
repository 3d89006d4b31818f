"""The limiter's server goes away while the broker lives; a worker that holds waiting jobs is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dramatiq_workers import Workers, most_in
from support.servers import Server, valkey_binary


@pytest.fixture
def broker_server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "broker").mkdir()
    with Server(valkey_binary(), tmp_path / "broker") as server:
        yield server


@pytest.fixture
def limits_server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "limits").mkdir()
    with Server(valkey_binary(), tmp_path / "limits") as server:
        yield server


def unlimited_jobs_run(workers: Workers) -> None:
    before = len(workers.of("unlimited"))
    for _ in range(10):
        workers.send("unlimited", time.time())
    workers.wait_for(lambda: len(workers.of("unlimited")) == before + 10, "jobs without a limit", patience=10)


def none_start(workers: Workers) -> None:
    time.sleep(0.3)
    before = len(workers.of("called"))
    unlimited_jobs_run(workers)
    time.sleep(1.0)
    assert len(workers.of("called")) == before


def some_start(workers: Workers, count: int) -> None:
    before = len(workers.of("called"))
    workers.wait_for(lambda: len(workers.of("called")) >= before + count, "limited jobs")


def test_no_job_runs_without_its_limiter_and_all_run_when_it_is_back(
    broker_server: Server, limits_server: Server, tmp_path: Path
) -> None:
    jobs = 60
    servers = {"broker": broker_server.url, "journal": broker_server.url, "limits": limits_server.url}
    with Workers(tmp_path, servers) as workers:
        for job in range(jobs):
            workers.send("call_through_outage", job)
        some_start(workers, 10)

        limits_server.kill()
        none_start(workers)
        limits_server.start()
        some_start(workers, 10)

        limits_server.signal(signal.SIGSTOP)
        none_start(workers)
        limits_server.signal(signal.SIGCONT)
        workers.wait_for(lambda: len(workers.ended("call_through_outage")) >= jobs, "end of the jobs")

        called = workers.of("called")
        assert sorted(int(line.says[0]) for line in called) == list(range(jobs))
        assert {job.retries for job in workers.ended("call_through_outage")} == {0}
        assert "limiter 'outage': its backend is unavailable" in workers.output()


def test_jobs_that_wait_in_a_killed_worker_are_run_by_another(broker_server: Server, tmp_path: Path) -> None:
    jobs = 60
    servers = dict.fromkeys(("broker", "journal", "limits"), broker_server.url)
    with Workers(tmp_path, servers, processes=1) as survivor:
        with Workers(tmp_path, servers, processes=1) as killed:
            for job in range(jobs):
                killed.send("call_through_outage", job)
            some_start(killed, 15)
        survivor.wait_for(lambda: len({line.says for line in survivor.of("called")}) == jobs, "end of the jobs")
        times = [line.at for line in survivor.of("called")]
        assert most_in(times, 1.0) <= 5 + 20 + 2
        assert len(times) <= jobs + 4
