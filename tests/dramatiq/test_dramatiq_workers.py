"""Real workers of Dramatiq's command line on a real server: two processes of four threads each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as RedisBarriers
from dramatiq.results.backends import RedisBackend
from support.closures import CAPACITY, CLOSED, JOBS, RATE, check_closure, check_override
from support.dramatiq_workers import Workers, most_in
from support.servers import Server, valkey_binary
from support.standing_still import check_missed_start

from steindamm import SyncSemaphore, SyncTokenBucket

LIMITED = 150
"""Jobs, at 50 a second, with 5 at once."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(valkey_binary(), tmp_path_factory.mktemp("server")) as server:
        yield server


def workers_on(server: Server, folder: Path) -> Workers:
    return Workers(folder, dict.fromkeys(("broker", "journal", "limits"), server.url))


@pytest.fixture(scope="module")
def workers(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Those that all tests share which let them live."""
    with workers_on(server, tmp_path_factory.mktemp("workers")) as workers:
        yield workers


def test_limited_jobs_keep_the_limit_use_it_and_hold_up_nobody(workers: Workers) -> None:
    for job in range(LIMITED):
        workers.send("call_api", job)
    began = time.monotonic()
    while time.monotonic() < began + 2.0:
        workers.send("unlimited", time.time())
        time.sleep(0.1)
    workers.wait_for(lambda: len(workers.ended("call_api")) >= LIMITED, "end of the jobs")
    called = workers.of("called")
    assert sorted(int(line.says[0]) for line in called) == list(range(LIMITED))
    times = [line.at for line in called]
    assert most_in(times, 1.0) <= 5 + 50 + 3
    assert max(times) - min(times) < 1.5 * (LIMITED - 5) / 50
    ended = workers.ended("call_api")
    assert sum(1 + job.deferrals for job in ended) <= 2.1 * LIMITED
    assert {(job.retries, job.queue) for job in ended} == {(0, "default")}
    late = sorted(line.at - float(line.says[0]) for line in workers.of("unlimited"))
    assert late[len(late) // 2] < 0.5
    assert "was skipped" not in workers.output()


def test_a_closure_and_an_override_hold_in_all_processes(workers: Workers, server: Server) -> None:
    api = SyncTokenBucket("live", capacity=CAPACITY, refill_frequency=1 / RATE, connection=server.url)

    def send(first: int, end: int) -> None:
        for job in range(first, end):
            workers.send("call_live", job)

    def called(first: int, end: int) -> list[float]:
        workers.wait_for(lambda: len(moments(first, end)) >= end - first, f"calls of {end - first} jobs")
        return moments(first, end)

    def moments(first: int, end: int) -> list[float]:
        return [line.at for line in workers.of("live") if first <= int(line.says[0]) < end]

    send(0, JOBS)
    called(0, 30)
    seconds, microseconds = server.admin.time()
    api.close_for(CLOSED)
    check_closure(called(0, JOBS), seconds + microseconds / 1e6)
    check_override(api, send, called)


def test_one_of_the_processes_warns_of_a_limiter_in_memory(workers: Workers) -> None:
    assert workers.output().count("limiter 'in memory' lives in memory") == 1


def test_own_retries_stay_a_job_s_own_and_a_refused_body_spends_none(workers: Workers) -> None:
    for job in range(20):
        workers.send("fail_once", job)
    refused = [workers.send("refused_twice", job) for job in range(5)]
    results = RedisBackend(client=workers.journal)
    assert [results.get_result(message, block=True, timeout=20_000) for message in refused] == [3] * 5
    workers.wait_for(lambda: len(workers.ended("fail_once")) == 40, "second tries")
    assert sorted(job.retries for job in workers.ended("fail_once")) == [1] * 40
    workers.wait_for(lambda: len(workers.ended("refused_twice")) == 5, "jobs that were refused")
    assert {job.retries for job in workers.ended("refused_twice")} == {0}
    assert len(workers.of("entered")) == 15


def test_what_fails_after_a_wait_is_a_dead_letter_of_its_queue_and_nothing_else_is_left(workers: Workers) -> None:
    for job in range(10):
        workers.send("fail", job)
    workers.wait_for(lambda: len(workers.ended("fail")) == 10, "end of the jobs")
    assert sum(job.deferrals for job in workers.ended("fail")) >= 9
    workers.wait_for(lambda: workers.journal.zcard("dramatiq:default.XQ") == 10, "dead letters")
    workers.wait_for(lambda: not workers.journal.hlen("dramatiq:default.DQ.msgs"), "an empty delay queue")
    workers.wait_for(lambda: not workers.journal.hlen("dramatiq:default.msgs"), "an empty queue")


def test_results_groups_and_pipelines_are_as_without_a_limit(workers: Workers) -> None:
    results = RedisBackend(client=workers.journal)
    workers.broker.add_middleware(GroupCallbacks(RedisBarriers(client=workers.journal)))
    adding = [workers.message("add", job, 0) for job in range(20)]
    group = dramatiq.group(adding, broker=workers.broker)
    group.add_completion_callback(workers.message("finished"))
    group.run()
    piped = [workers.message("add", 1, 2), workers.message("add", 3)]
    dramatiq.pipeline(piped, broker=workers.broker).run()
    found = [results.get_result(message, block=True, timeout=20_000) for message in [*adding, piped[-1]]]
    assert found == [*range(20), 6]
    workers.wait_for(lambda: workers.ended("finished"), "callback of the group")
    time.sleep(0.3)
    assert len(workers.ended("finished")) == 1
    assert len(workers.ended("add")) == 22


def test_never_more_jobs_than_slots_run_and_the_slots_are_used(workers: Workers) -> None:
    jobs = 45
    for job in range(jobs):
        workers.send("hold_slot", job)
    workers.wait_for(lambda: len(workers.of("freed")) == jobs, "end of the jobs")
    held, freed = workers.of("held"), workers.of("freed")
    assert sorted(int(line.says[0]) for line in held) == list(range(jobs))
    assert workers.journal.get("three running:most") == b"3"
    assert freed[-1].at - held[0].at < 2.5 * jobs * 0.1 / 3


def is_free(workers: Workers, how: str) -> bool:
    """Whether the slot of such a job can be had."""
    slots = SyncSemaphore(f"one {how}", capacity=1, expiry=3, connection=workers.journal)
    permit = slots.try_acquire()
    if permit is not None:
        slots.release(permit)
    return permit is not None


def wait_for_holder(workers: Workers, how: str) -> int:
    """Wait for a job that holds its slot; the process that runs it."""
    workers.wait_for(lambda: [line for line in workers.of("holds") if line.says[0] == how], "job that holds a slot")
    (holder,) = (int(line.says[1]) for line in workers.of("holds") if line.says[0] == how)
    return holder


@pytest.mark.parametrize("how", ["returns", "fails", "exceeds its time"])
def test_a_slot_comes_back_however_its_job_ends(workers: Workers, how: str) -> None:
    workers.send("end_somehow", how, time_limit=300)
    wait_for_holder(workers, how)
    workers.wait_for(lambda: is_free(workers, how), "slot", patience=2.5)


@pytest.fixture
def own_workers(tmp_path: Path) -> Iterator[Workers]:
    """Those that a test ends, on a server of their own."""
    with Server(valkey_binary(), tmp_path) as server, workers_on(server, tmp_path) as workers:
        yield workers


def test_a_slot_comes_back_when_its_worker_is_told_to_end(own_workers: Workers) -> None:
    own_workers.send("end_somehow", "is told")
    wait_for_holder(own_workers, "is told")
    assert not is_free(own_workers, "is told")
    own_workers.stop()
    assert is_free(own_workers, "is told")


def test_a_killed_worker_loses_its_slot_after_its_lease_and_a_living_one_never(own_workers: Workers) -> None:
    own_workers.send("end_somehow", "is killed")
    holder = wait_for_holder(own_workers, "is killed")
    time.sleep(3.5)
    assert not is_free(own_workers, "is killed")
    os.kill(holder, signal.SIGKILL)
    killed = time.monotonic()
    assert not is_free(own_workers, "is killed")
    while not is_free(own_workers, "is killed"):
        assert time.monotonic() < killed + 10
        time.sleep(0.05)
    assert time.monotonic() - killed < 5


def test_a_job_that_was_let_start_before_its_worker_stood_still_waits_for_a_slot_again(
    server: Server, workers: Workers
) -> None:
    workers.send("hold_only_slot")
    check_missed_start(server.url, "only", lambda: len(workers.of("has the only slot")))
    workers.wait_for(lambda: workers.ended("hold_only_slot"), "end of the job")
    assert [job.retries for job in workers.ended("hold_only_slot")] == [0]
