"""A job's code finds its permit, and settles its cost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from steindamm import AlreadySettledError, AsyncTokenBucket, SyncSemaphore, SyncTokenBucket, all_of, current_permit
from steindamm.running import running
from steindamm.testing import as_async_job, as_job


def test_outside_of_a_job_the_error_says_so() -> None:
    with pytest.raises(LookupError, match="none runs here"):
        current_permit()


def test_in_a_job_without_a_limit_the_error_says_so() -> None:
    with running(lambda: None), pytest.raises(LookupError, match="nothing limits the one that runs here"):
        current_permit()


def test_a_job_settles_its_cost_once() -> None:
    model = SyncTokenBucket("settled by a job", capacity=1_000, refill_frequency=1_000)
    with as_job(model(500)) as permit:
        assert current_permit() is permit
        current_permit().settle(900)
        with pytest.raises(AlreadySettledError):
            current_permit().settle(900)
    assert model(100).try_acquire() is not None
    assert model(1).try_acquire() is None
    with pytest.raises(LookupError):
        current_permit()


def test_of_several_limits_it_gives_the_permit_of_the_one_that_is_named() -> None:
    model, slots = SyncTokenBucket("one of several"), SyncSemaphore("its slots")
    with as_job(all_of(model, slots)) as permit:
        assert current_permit() is permit
        assert current_permit("its slots").fence > 0
        assert current_permit(model).name == model.name
        with pytest.raises(ValueError, match="must be one of the job's, 'its slots \\+ one of several', not 'neither'"):
            current_permit("neither")


def test_each_thread_has_a_job_of_its_own() -> None:
    seen = []

    def look() -> None:
        try:
            seen.append(current_permit())
        except LookupError as error:
            seen.append(error)

    with as_job(SyncTokenBucket("of this thread")):
        other = threading.Thread(target=look)
        other.start()
        other.join()
    assert isinstance(seen[0], LookupError)


async def test_tasks_that_a_job_makes_find_its_permit_and_others_do_not() -> None:
    model = AsyncTokenBucket("of a task", capacity=10)

    async def ask() -> str:
        await current_permit().settle(2)
        return current_permit().name

    async def job() -> str:
        async with as_async_job(model):
            return await asyncio.create_task(ask())

    assert await asyncio.create_task(job()) == "of a task"
    with pytest.raises(LookupError):
        await asyncio.create_task(ask())
