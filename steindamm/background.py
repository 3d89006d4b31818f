"""Tasks that nobody awaits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from steindamm.errors import SteindammError

Result = TypeVar("Result")
_running: set[asyncio.Task[Any]] = set()


def in_background(undoing: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
    """Run to its end what must not be cut short by a cancellation.

    A backend that does not answer is no error here: what could not be undone is lost to its turn, or its
    lease, and to nobody else.
    """

    async def run() -> None:
        with suppress(SteindammError):
            await undoing

    task = asyncio.get_running_loop().create_task(run())
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def to_its_end(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await what goes on to its end where whoever awaits it is cancelled."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _running.add(task)
    task.add_done_callback(_ended)
    return await asyncio.shield(task)


async def within(seconds: float, coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await it for so long at most. It is then cancelled, as when its awaiter is, and ends in the background.

    Raises:
        TimeoutError: It took longer.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    _running.add(task)
    task.add_done_callback(_ended)
    try:
        await asyncio.wait({task}, timeout=seconds if seconds < math.inf else None)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def _ended(task: asyncio.Task[Any]) -> None:
    """Its error, if any, was for the one who awaited it."""
    _running.discard(task)
    if not task.cancelled():
        task.exception()


async def ended_in_background(patience: float) -> None:
    """Wait until what runs in the background of this loop has ended, but for no longer than so many seconds."""
    loop = asyncio.get_running_loop()
    running = {task for task in _running if task.get_loop() is loop}
    if running:
        await asyncio.wait(running, timeout=patience)
