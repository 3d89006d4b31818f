"""Cancels a task at every await that there is, one run after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

MOST_STEPS = 40


class CancelledAt:
    """A coroutine during whose nth await its task is cancelled, once or twice."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: int, *, again: bool = False) -> None:
        self._coroutine = coroutine
        self._steps = {step, step + 1} if again else {step}
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        awaiting = self._coroutine.__await__()
        number, send, value = 0, awaiting.send, None
        while True:
            try:
                future = send(value)
            except StopIteration as stop:
                return stop.value
            if number in self._steps:
                self.reached = True
                task = asyncio.current_task()
                assert task
                task.cancel()
            number += 1
            try:
                send, value = awaiting.send, (yield future)
            except BaseException as error:  # noqa: BLE001
                send, value = awaiting.throw, error


async def cancelled_at_each_step(make: Callable[[], Coroutine[Any, Any, Any]], check: Any, *, again: bool) -> int:
    """Cancel at every await there is; returns how many there are."""
    for step in range(MOST_STEPS):
        stepped = CancelledAt(make(), step, again=again)
        task = asyncio.create_task(awaited(stepped))
        done, _ = await asyncio.wait({task}, timeout=10)
        assert done, f"hangs when cancelled at await {step}"
        if not stepped.reached:
            assert not task.cancelled()
            return step
        assert task.cancelled()
        await check()
    raise AssertionError("more awaits than expected")


async def awaited(stepped: CancelledAt) -> Any:
    return await stepped
