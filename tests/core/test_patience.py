"""Blocks of many tasks at once that may take for so long."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import pytest

from steindamm.patience import Patience

SOON = 0.02
LONG = 60.0


async def staying(seconds: float, patience: float) -> None:
    with Patience(patience):
        await asyncio.sleep(seconds)


async def test_each_task_has_its_own_time() -> None:
    patiences = [LONG, 3 * SOON, math.inf, SOON, 2 * SOON]
    tasks = [asyncio.create_task(staying(10 * SOON, patience)) for patience in patiences]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [
        type(None), TimeoutError, type(None), TimeoutError, TimeoutError,
    ]  # fmt: skip


async def test_one_that_comes_later_may_be_the_first_whose_time_is_over() -> None:
    patient = asyncio.create_task(staying(LONG, LONG))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await staying(LONG, SOON)
    assert not patient.done()
    patient.cancel()


async def test_after_one_whose_time_was_not_over_the_others_are_looked_after() -> None:
    await staying(0, SOON)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await staying(LONG, 2 * SOON)


async def test_one_that_has_no_time_at_all_may_still_do_what_needs_none() -> None:
    await staying(0, -1.0)
    with pytest.raises(TimeoutError):
        await staying(LONG, -1.0)


async def test_blocks_that_are_quick_are_let_alone_whatever_time_goes_by_between_them() -> None:
    for _ in range(4):
        await staying(0, SOON)
        await asyncio.sleep(SOON * 0.7)


async def test_what_runs_in_no_task_is_let_alone() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def drive(block: Coroutine[Any, Any, None]) -> None:
        try:
            block.send(None)
        except StopIteration:
            ended.set()
        else:
            loop.call_soon(drive, block)

    loop.call_soon(drive, staying(0, SOON))
    await asyncio.wait_for(ended.wait(), LONG)


async def test_a_task_that_is_cancelled_in_it_is_cancelled() -> None:
    task = asyncio.create_task(staying(LONG, LONG))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_cancelled_as_its_time_ends_is_cancelled() -> None:
    async def work() -> None:
        with Patience(LONG) as patience:
            patience.lose()
            asyncio.current_task().cancel()
            await asyncio.sleep(LONG)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_an_error_that_comes_of_it_is_no_timeout() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise ValueError("its own") from None

    with pytest.raises(ValueError, match="its own"), Patience(SOON):
        await work()
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)
