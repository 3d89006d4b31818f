"""Tasks that nobody awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from steindamm.errors import SteindammError
from steindamm.loops import EachLoop

LAST_PATIENCE = 1.0
"""Seconds for what still runs when its event loop ends."""

Result = TypeVar("Result")


class _Running(set["asyncio.Task[Any]"]):
    """The tasks of one event loop; when it ends, they end before it: the loop then ends the generators it knows of."""

    def __init__(self) -> None:
        self._ending = self._end()
        with suppress(StopIteration):
            self._ending.__anext__().send(None)

    async def _end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await ended_in_background(LAST_PATIENCE)
            for task in self:
                task.cancel()
            await ended_in_background(LAST_PATIENCE)


_running: EachLoop[_Running] = EachLoop(_Running)


def in_background(undoing: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
    """Run to its end what must not be cut short by a cancellation.

    A backend that does not answer is no error here: what could not be undone is lost to its turn, or its
    lease, and to nobody else.
    """

    async def run() -> None:
        with suppress(SteindammError):
            await undoing

    task = _started(run())
    task.add_done_callback(lambda _: undoing.close())  # it may have been cancelled before it began
    return task


def outliving(coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """A task that goes on whatever becomes of those who await it; its error, if any, is for them alone."""
    task = _started(coroutine)
    task.add_done_callback(_said_to_those_alone)
    return task


def _started(coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    running = _running.here()
    task = asyncio.get_running_loop().create_task(coroutine)
    running.add(task)
    task.add_done_callback(running.discard)
    return task


def _said_to_those_alone(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def to_its_end(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await what goes on to its end where whoever awaits it is cancelled."""
    return await asyncio.shield(outliving(coroutine))


async def within(seconds: float | None, coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await it for so long at most (None is without end): then it is cancelled, as when its awaiter is.

    It ends in the background.

    Raises:
        TimeoutError: It took longer.
    """
    task = outliving(coroutine)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


async def ended_in_background(patience: float) -> None:
    """Wait until what runs in the background of this loop has ended, but for no longer than so many seconds."""
    if running := _running.here():
        await asyncio.wait(running, timeout=patience)
