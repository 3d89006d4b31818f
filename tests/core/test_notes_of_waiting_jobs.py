"""How notes of waiting jobs are gathered and written: together, soon, and without harm where they can't be."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import pytest
import redis
import redis.asyncio
from support.buckets import NUMBERS
from support.semaphores import until
from support.servers import HOST, Server, free_port

from steindamm.backends.redis import waiting_jobs
from steindamm.backends.redis.links import async_link, sync_link
from steindamm.backends.redis.waiting_jobs import AT_ONCE, GRACE, LONGEST_ID, MOST, Line, Note, Notes, job_key, lines

SECOND = 1e6
BUCKET = Line("bucket", "{mail}")
SEMAPHORE = Line("semaphore", "{mail}")


def told(notes: dict[str, Note], *, age: float = 0.0) -> list[tuple[str, list[object]]]:
    """What the scripts are told, by limiter, of notes that were taken so many seconds ago."""
    taken_at = monotonic() - age
    calls = list(lines({job: (taken_at, note) for job, note in notes.items()}))
    assert all(call.args[1] == GRACE * SECOND and call.name == call.keys[0].split(":")[1] for call in calls)
    return [(str(call.args[0]), list(call.args[2:])) for call in calls]


# What is told


def test_a_bucket_is_told_the_turn_of_each_job() -> None:
    notes = {"a": Note("mail", 3.0, BUCKET, turn=17.0), "b": Note("mail", 4.0, BUCKET, turn=18.0)}
    assert told(notes, age=2) == [("bucket", ["a", 17.0, "b", 18.0])]


def test_a_semaphore_is_told_how_long_it_will_still_be() -> None:
    [(kind, [job, waits])] = told({"a": Note("mail", 3.0, SEMAPHORE)}, age=2)
    assert (kind, job) == ("semaphore", "a")
    assert waits == pytest.approx(1 * SECOND, abs=0.5 * SECOND)


def test_a_job_whose_wait_nobody_can_tell_waits_no_longer() -> None:
    [(_, [_, waits])] = told({"a": Note("mail", None, SEMAPHORE)}, age=2)
    assert waits == pytest.approx(-2 * SECOND, abs=0.5 * SECOND)


def test_each_line_that_jobs_have_left_is_told_of_all_of_them() -> None:
    notes = {"a": Note("mail", left=(BUCKET, SEMAPHORE)), "b": Note("mail", 3.0, BUCKET, turn=17.0, left=(SEMAPHORE,))}
    assert told(notes) == [("bucket", ["a", "", "b", 17.0]), ("semaphore", ["a", "", "b", ""])]


def test_a_script_is_told_of_so_many_at_once() -> None:
    notes = {f"job {number}": Note("mail", 3.0, BUCKET, turn=number) for number in range(2 * AT_ONCE + 1)}
    calls = [jobs for _, jobs in told(notes)]
    assert [len(jobs) // 2 for jobs in calls] == [AT_ONCE, AT_ONCE, 1]
    assert [job for jobs in calls for job in jobs[::2]] == list(notes)


# What is gathered


def test_so_many_jobs_are_noted_and_no_more() -> None:
    notes = Notes()
    for number in range(MOST + 5):
        notes._add(str(number), Note("mail"))
    assert list(notes._collect()) == [str(number) for number in range(MOST)]
    assert notes._collect() == {}


def test_a_job_with_a_longer_id_than_any_queue_gives_is_not_noted() -> None:
    notes = Notes()
    notes._add("x" * LONGEST_ID, Note("mail"))
    notes._add("y" * (LONGEST_ID + 1), Note("mail"))
    assert list(notes._collect()) == ["x" * LONGEST_ID]


# How they are written


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_jobs, "GATHERING", 0.02)


@pytest.fixture(params=["sync", "async"])
async def linked(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Gives the link to the server at a port."""
    async with AsyncExitStack() as clients:

        async def link(port: int) -> Any:
            if request.param == "sync":
                return sync_link(clients.enter_context(redis.Redis(HOST, port)))
            return async_link(await clients.enter_async_context(redis.asyncio.Redis(host=HOST, port=port)))

        yield link


def is_idle(notes: Any) -> bool:
    return getattr(notes, "_thread", None) is None and getattr(notes, "_task", None) is None


async def test_whoever_writes_ends_when_there_is_nothing_and_begins_again_with_the_next(
    linked: Any, valkey: Server
) -> None:
    notes = (await linked(valkey.port)).notes
    for _ in range(3):
        job = f"note-{next(NUMBERS)}"
        notes.take(job, Note("mail", 3.0))
        await until(lambda job=job: valkey.admin.exists(job_key(job)))
        await until(lambda: is_idle(notes))


async def test_notes_that_cannot_be_written_are_counted_in_the_log(
    linked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    notes = (await linked(free_port())).notes
    with caplog.at_level(logging.DEBUG, "steindamm"):
        for number in range(3):
            notes.take(f"job {number}", Note("mail", 3.0))
        await until(lambda: is_idle(notes))
    [message] = caplog.messages
    assert message.startswith("3 notes of waiting jobs are lost: ")
    assert "ConnectionError" in message
