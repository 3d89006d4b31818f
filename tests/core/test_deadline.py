"""A deadline for one block after another."""

from __future__ import annotations

import asyncio

import pytest

from steindamm.backends.redis.deadline import Deadline

SOON = 0.02
LONG = 60.0


async def test_blocks_that_are_quick_are_let_alone_whatever_time_goes_by_between_them() -> None:
    deadline = Deadline(SOON)
    for _ in range(4):
        with deadline:
            await asyncio.sleep(0)
        await asyncio.sleep(SOON * 0.7)


async def test_one_that_takes_too_long_ends_in_an_error_and_the_next_one_has_its_own_time() -> None:
    deadline = Deadline(SOON)
    for _ in range(3):
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(LONG)
        with deadline:
            await asyncio.sleep(0)


async def test_the_time_of_a_block_begins_with_it() -> None:
    """The timer of one long ago rings in the next: it rings once more, when that one's own time is over."""
    deadline = Deadline(LONG)
    with deadline:
        await asyncio.sleep(0)
    deadline._since -= LONG
    with deadline:
        deadline._look()
        await asyncio.sleep(0)
        assert deadline._timer.when() == pytest.approx(deadline._since + LONG)


async def test_a_task_that_is_cancelled_in_it_is_cancelled() -> None:
    async def work() -> None:
        with Deadline(LONG):
            await asyncio.sleep(LONG)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_cancelled_as_its_time_ends_is_cancelled() -> None:
    async def work() -> None:
        deadline = Deadline(LONG)
        with deadline:
            deadline._since -= LONG
            deadline._look()
            asyncio.current_task().cancel()
            await asyncio.sleep(LONG)

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_that_comes_of_it_is_no_timeout() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise ValueError("its own") from None

    with pytest.raises(ValueError, match="its own"), Deadline(SOON):
        await work()
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)
