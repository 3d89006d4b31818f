"""Jobs whose server says "not now" close their limiter and come back in their turn; jobs settle their costs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery.exceptions import CeleryError
from support import refusing_api
from support.celery_workers import PATIENCE, until
from support.closures import CAPACITY, CLOSED, JOBS, RATE, check_closure, check_override

from steindamm import MaxSleepExceededError, SyncSemaphore, SyncTokenBucket

EARLY = 0.02
"""Seconds that an entry of the journal may come before what it tells of."""


@pytest.mark.parametrize("how", ["Throttled", "busy", "group"])
def test_a_servers_not_now_closes_the_limiter_for_all_and_spends_no_retry(farm: Any, label: str, how: str) -> None:
    limit = [f"{label} api", "20/s", 1]
    sent = [farm.send("call_server", limit, f"{label} {job}", "accept") for job in range(10)]
    sent.insert(0, farm.send("call_server", limit, f"{label} first", how, 1.5))
    sent += [farm.send("call_server", limit, f"{label} {job}", "accept") for job in range(10, 20)]
    assert [result.get(timeout=PATIENCE) for result in sent[:2]] == [f"{label} first", f"{label} 0"]
    assert len(farm.wait_for("end", label, 21)) == 21
    starts = farm.journal("start", label)
    assert len(starts) == 22
    assert {start.more[0] for start in starts} == {"0"}
    [refused] = farm.journal("refused", label)
    after = sorted(at for start in starts if (at := start.at - refused.at) > 0.2)
    late = sum(at < 1.5 - EARLY for at in after)
    assert late <= 4, "more than those that had been let start before"
    assert all(at > 1.5 + (place - 1) / 20 - EARLY for place, at in enumerate(after[late:]))


def test_a_task_with_a_strategy_of_its_own_does_the_same(farm: Any, label: str) -> None:
    limit = [f"{label} api", "10/s", 5]
    sent = [farm.send("call_server_ungated", limit, f"{label} {job}", "Throttled", 1.0) for job in range(2)]
    assert [result.get(timeout=PATIENCE) for result in sent] == [f"{label} 0", f"{label} 1"]
    assert min(end.at for end in farm.journal("end", label)) - farm.journal("refused", label)[0].at > 1 - EARLY
    assert {start.more[0] for start in farm.journal("start", label)} == {"0"}


def test_a_slot_is_free_for_others_while_its_job_waits(farm: Any, label: str) -> None:
    farm.send("call_server", [f"{label} slots", 1], label, "Throttled", 1.0)
    farm.wait_for("refused", label)
    slots = SyncSemaphore(f"{label} slots", capacity=1, connection=farm.limits.url)
    slots.reopen()
    with slots:
        pass
    assert farm.wait_for("end", label)


def test_a_limiter_in_the_memory_of_the_main_process_is_closed_there(farm: Any, label: str) -> None:
    first = farm.send("call_server_from_memory", f"{label} first", 2.0)
    farm.wait_for("refused", label)
    time.sleep(0.2)
    rest = [farm.send("call_server_from_memory", f"{label} {job}") for job in range(40)]
    assert [result.get(timeout=PATIENCE) for result in (first, *rest)]
    [refused] = farm.journal("refused", label)
    waited = [end.at - refused.at > 1.9 for end in farm.journal("end", label)]
    assert 5 < sum(waited) < 41, "the other worker has a limiter of its own"


def test_a_job_that_would_wait_too_long_fails(farm: Any, label: str) -> None:
    job = farm.send("call_server_or_give_up", [f"{label} api", "20/s"], label)
    with pytest.raises((MaxSleepExceededError, CeleryError)) as failure:
        job.get(timeout=PATIENCE)
    assert "MaxSleepExceededError" in type(failure.value).__name__
    assert len(farm.journal("start", label)) == 1


def test_a_job_that_nothing_limits_comes_back_after_the_pause(farm: Any, label: str) -> None:
    assert farm.send("call_server", None, label, "Throttled", 0.5).get(timeout=PATIENCE) == label
    first, last = farm.journal("start", label)
    assert last.at - first.at > 0.5 - EARLY


def test_a_reader_that_raises_fails_its_job_alone(farm: Any, label: str) -> None:
    limit = [f"{label} api", "20/s"]
    odd, fine = (farm.send("call_server", limit, f"{label} {how}", how) for how in ("odd", "accept"))
    with pytest.raises((IndexError, CeleryError), match="index out of range"):
        odd.get(timeout=PATIENCE)
    assert fine.get(timeout=PATIENCE) == f"{label} accept"


def test_a_job_settles_its_cost_from_its_pool_process(farm: Any, label: str) -> None:
    name = f"{label} model"
    assert farm.send("use_model", [name, "1/h", 1000], label, 900).get(timeout=PATIENCE) == f"{name} 500"
    model = SyncTokenBucket.from_rate("1/h", name=name, capacity=1000, connection=farm.limits.url)
    assert model(150).try_acquire() is None
    assert model(100).try_acquire() is not None


def test_of_several_limits_a_job_settles_the_one_that_it_names(farm: Any, label: str) -> None:
    name = f"{label} model"
    limits = [[name, "1/h", 1000], [f"{label} slots", 2], [f"{label} rate", "1000/s", 1000]]
    assert farm.send("use_model", limits, label, 100, name).get(timeout=PATIENCE) == f"{name} 500"
    model = SyncTokenBucket.from_rate("1/h", name=name, capacity=1000, connection=farm.limits.url)
    assert model(900).try_acquire() is not None


def test_a_job_knows_the_fence_of_its_slot(farm: Any, label: str) -> None:
    fences = [farm.send("show_fence", [f"{label} slots", 1]).get(timeout=PATIENCE) for _ in range(2)]
    assert 0 < fences[0] < fences[1]


def test_what_lives_in_the_main_process_cant_be_settled_in_another_one(farm: Any) -> None:
    with pytest.raises((TypeError, CeleryError), match="give it a connection"):
        farm.send("use_model_in_memory", 1).get(timeout=PATIENCE)


def test_a_closure_and_an_override_hold_in_all_processes(farm: Any, label: str) -> None:
    limit = [f"{label} api", f"{RATE}/s", CAPACITY]
    api = SyncTokenBucket.from_rate(limit[1], limit[0], capacity=CAPACITY, connection=farm.limits.url)

    def send(first: int, end: int) -> None:
        for job in range(first, end):
            farm.send("call_server", limit, f"{label} {job}.")

    def called(first: int, end: int) -> list[float]:
        until(lambda: len(moments(first, end)) >= end - first)
        return moments(first, end)

    def moments(first: int, end: int) -> list[float]:
        jobs = {f"{label} {job}." for job in range(first, end)}
        return [start.at for start in farm.journal("start", label) if start.job in jobs]

    send(0, JOBS)
    farm.wait_for("start", label, 30)
    closed_at = farm.now()
    api.close_for(CLOSED)
    check_closure(called(0, JOBS), closed_at)
    check_override(api, send, called)


def test_an_api_that_allows_half_of_the_limit_hardly_ever_has_to_say_no(farm: Any, label: str) -> None:
    with refusing_api.refusing_api() as url:
        for job in range(refusing_api.JOBS):
            farm.send("call_over_http", label, url, job)
        refusing_api.check(refusing_api.calls_of_all(url))
        assert {entry.more[0] for entry in farm.wait_for("answered", label, refusing_api.JOBS)} == {"0"}
