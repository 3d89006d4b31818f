"""The limiter's server goes away while the broker lives; a worker that holds waiting jobs is killed."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker
from support.dramatiq_jobs import Seen, until
from support.dramatiq_workers import Workers, most_in
from support.servers import Server, valkey_binary

from steindamm import SyncTokenBucket
from steindamm.integrations.dramatiq import outages

StartWorker = Callable[..., dramatiq.Worker]


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


@pytest.fixture
def patient_client(limits_server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(limits_server.url, socket_timeout=60) as client:
        yield client


def limited_by(client: redis.Redis, name: str, **options: Any) -> dramatiq.Actor[..., Any]:
    """An actor whose limiter has been asked already: its client is connected."""
    limiter = SyncTokenBucket(name, capacity=100, connection=client)
    limiter.acquire()
    return dramatiq.actor(lambda: None, actor_name=name, limiter=limiter, **options)


@pytest.mark.parametrize("options", [{}, {"max_deferral": 0, "max_retries": 0}])
def test_one_thread_alone_waits_for_a_server_that_begins_to_hang(
    broker: StubBroker,
    start_worker: StartWorker,
    seen: Seen,
    limits_server: Server,
    patient_client: redis.Redis,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(outages, "SLOW", 0.0)
    limited = limited_by(patient_client, name, **options)
    free = dramatiq.actor(lambda: None, actor_name="free")
    with limits_server.standing_still():
        waiting = limited.send()
        start_worker(threads=4)
        until(lambda: seen.deliveries == [waiting.message_id])
        time.sleep(0.05)
        others = {limited.send().message_id for _ in range(6)}
        until(lambda: others <= {*seen.sent_back, *(letter.message_id for letter in broker.dead_letters)})
        free.send()
        until(lambda: any(not exception for *_, exception in seen.ended))
        assert waiting.message_id not in seen.sent_back
    until(lambda: len(seen.ended) == 8)


def test_jobs_that_fail_since_a_server_does_not_answer_are_no_sign_that_it_is_back(
    broker: StubBroker,
    start_worker: StartWorker,
    seen: Seen,
    limits_server: Server,
    patient_client: redis.Redis,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    waits = limited_by(patient_client, f"{name} waits")
    fails = limited_by(patient_client, f"{name} fails", max_deferral=0, max_retries=0)
    limits_server.kill()

    def said(what: str) -> int:
        return sum(what in record.getMessage() for record in caplog.records)

    with caplog.at_level(logging.WARNING, "steindamm.dramatiq"):
        start_worker(threads=1)
        waits.send()
        until(lambda: said("jobs wait until it is back"))
        for number in range(1, 4):
            fails.send()
            until(lambda number=number: len(broker.dead_letters) == number)
        assert (said("jobs wait until it is back"), said("that was unavailable is back")) == (1, 0)
        limits_server.start()
        until(lambda: said("that was unavailable is back"))
    until(lambda: any(not exception for *_, exception in seen.ended))
