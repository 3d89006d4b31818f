"""What may become of jobs that wait: they fail in time, expire, are revoked, and tell that they wait."""

from __future__ import annotations

import math
import time
from functools import partial
from threading import Event, Thread
from typing import Any

from celery import Celery
from support.celery_workers import PATIENCE, until

from steindamm import SyncSemaphore, SyncTokenBucket, where_is


class Events:
    """What happens to jobs, as a monitor hears of it."""

    def __init__(self, app: Celery, kind: str) -> None:
        self.found: list[dict[str, Any]] = []
        listens = Event()
        handlers = {kind: self.found.append, "probe-sent": lambda _: listens.set()}
        self._connection = app.connection_for_read()
        self._receiver = app.events.Receiver(self._connection, handlers=handlers)
        self._thread = Thread(target=lambda: self._receiver.capture(timeout=PATIENCE, wakeup=False))
        self._thread.start()
        with app.events.default_dispatcher() as dispatcher:
            until(lambda: dispatcher.send("probe-sent") or listens.wait(0.05), what="no event")

    def stop(self) -> None:
        self._receiver.should_stop = True
        self._thread.join(PATIENCE)
        self._connection.close()


def error_of(job: Any) -> str:
    error = job.get(timeout=PATIENCE, propagate=False)
    assert job.state == "FAILURE"
    return f"{type(error).__name__}: {error}"


def test_a_job_that_would_wait_for_longer_than_it_may_fails_at_once(farm: Any, label: str) -> None:
    limit = [label, "1/h", 1]
    assert farm.send("work_or_give_up", limit, f"{label} first").get(timeout=PATIENCE)
    assert "MaxSleepExceededError" in error_of(
        farm.send("work_or_give_up", limit, label, link_error=farm.signature("note", label))
    )
    assert farm.wait_for("noted", label)


def test_a_job_that_waits_for_a_slot_fails_when_it_has_waited_for_too_long(farm: Any, label: str) -> None:
    holder = farm.send("work", [label, 1, 60.0], f"{label} holder", "sleep", 20.0)
    farm.wait_for("start", f"{label} holder")
    jobs = [farm.send("work_or_give_up", [label, 1, 60.0], f"{label} late") for _ in range(3)]
    for job in jobs:
        assert "MaxSleepExceededError" in error_of(job)
    farm.app.control.revoke(holder.id, terminate=True)
    assert farm.send("work_or_give_up", [label, 1, 60.0], f"{label} next").get(timeout=PATIENCE)
    assert farm.journal("start", f"{label} late") == []


def test_jobs_beyond_a_quota_fail(farm: Any, label: str) -> None:
    jobs = [farm.send("within_quota", f"{label} {number}") for number in range(5)]
    states = [job.get(timeout=PATIENCE, propagate=False) for job in jobs]
    assert sum(isinstance(state, str) for state in states) == 2
    assert sum("NoTokensAvailableError" in type(state).__name__ for state in states) == 3


def test_a_held_job_that_is_revoked_or_expires_never_runs(farm: Any, label: str) -> None:
    farm.send("work", [label, "1/2s", 1], label).get(timeout=PATIENCE)
    revoked = farm.send("work", [label, "1/2s", 1], label)
    expired = farm.send("work", [label, "1/2s", 1], label, expires=1.5)
    farm.app.control.revoke(revoked.id)
    until(lambda: {revoked.state, expired.state} == {"REVOKED"}, what="not revoked")
    assert len(farm.journal("start", label)) == 1


def test_a_job_in_line_for_a_slot_that_is_revoked_or_expires_takes_none(farm: Any, label: str) -> None:
    limit = [label, 1, 60.0]
    farm.send("work", limit, f"{label} first", "sleep", 2.0)
    farm.wait_for("start", f"{label} first")
    revoked = farm.send("work", limit, label)
    expired = farm.send("work", limit, label, expires=0.5)
    last = farm.send("work", limit, f"{label} last")
    farm.app.control.revoke(revoked.id)
    assert last.get(timeout=PATIENCE) == f"{label} last"
    until(lambda: {revoked.state, expired.state} == {"REVOKED"}, what="not revoked")
    assert len(farm.journal("start", label)) == 2


def test_a_job_that_waits_says_so_in_the_log_and_by_an_event(farm: Any, label: str) -> None:
    limit, events = [label, "1/s", 1], Events(farm.app, "task-throttled")
    farm.send("work", limit, label).get(timeout=PATIENCE)
    waiting = farm.send("work", limit, label)
    [event] = until(lambda: [event for event in events.found if event["limiter"] == label], what="no event")
    events.stop()
    assert event["uuid"] == waiting.id
    assert math.isclose(event["turn"], time.time(), abs_tol=5)
    assert farm.says(f"Task support.celery_app.work[{waiting.id}] waits for its turn at limiter '{label}', in ") == 1


def scheduled_ids(farm: Any) -> set[str]:
    scheduled = farm.app.control.inspect(timeout=1).scheduled() or {}
    return {entry["request"]["id"] for entries in scheduled.values() for entry in entries}


def test_a_held_job_shows_among_the_scheduled_ones(farm: Any, label: str) -> None:
    limit = [label, "1/h", 1]
    farm.send("work", limit, label).get(timeout=PATIENCE)
    waiting = farm.send("work", limit, label)
    farm.wait_until_logged(f"limiter '{label}'")
    until(lambda: waiting.id in scheduled_ids(farm), what="not scheduled")
    farm.app.control.revoke(waiting.id)


def test_what_a_sender_hides_of_the_arguments_stays_hidden_when_a_job_goes_back(farm: Any, label: str) -> None:
    events = Events(farm.app, "task-received")
    SyncTokenBucket(label, capacity=1, connection=farm.limits.url).reserve()
    job = farm.send("refused_inside", label, label, 1.0, argsrepr="(hidden)")
    job.get(timeout=PATIENCE)
    received = until(lambda: [event for event in events.found if event["uuid"] == job.id][:2][1:], what="not back")
    events.stop()
    assert received[0]["args"] == "(hidden)"


def test_people_can_ask_where_a_job_waits_that_a_worker_holds(farm: Any, label: str) -> None:
    """One is held until its turn, one stands in a semaphore's line, and none is found when it has started."""
    limit = [f"{label} slow", "20/m"]
    jobs = [farm.send("work", limit, f"{label} {job}") for job in range(3)]
    ask = partial(where_is, connection=farm.limits.url)
    until(lambda: sum(ask(job.id) is not None for job in jobs) == 2)
    second, third = sorted((ask(job.id) for job in jobs if ask(job.id)), key=lambda here: here.place)
    assert (second.limiter, second.place, third.place) == (f"{label} slow", 1, 2)
    assert 0 < second.turn_in <= 3 < third.turn_in <= 6
    until(lambda: ask(second.job_id) is None)
    assert len(farm.wait_for("end", label, 2)) == 2
    assert ask(third.job_id).place == 1
    jobs = [farm.send("work", [f"{label} slots", 1], f"{label} slot {job}", "sleep", 2.0) for job in range(3)]
    until(lambda: sum(ask(job.id) is not None for job in jobs) == 2)
    assert {ask(job.id).limiter for job in jobs if ask(job.id)} == {f"{label} slots"}
    [holder] = SyncSemaphore(f"{label} slots", capacity=1, connection=farm.limits.url).state().holders
    assert holder.job_id in {job.id for job in jobs if ask(job.id) is None}
