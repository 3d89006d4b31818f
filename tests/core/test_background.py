"""What runs in the background ends with its event loop at the latest, and is given a moment for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.gates import PATIENCE

from steindamm import LimiterUnavailableError, background
from steindamm.background import ended_in_background, in_background, outliving

WAYS = pytest.mark.parametrize("start", [in_background, outliving])
Start = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Work:
    """Work that notes how it ends."""

    def __init__(self) -> None:
        self.ended = ""

    async def takes(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"


def complaints_of(main: Callable[[], Coroutine[Any, Any, None]]) -> list[str]:
    """What an event loop has to say, in the end, of what it ran."""
    said: list[str] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
        runner.run(main())
    return said


async def cancelled_at_work(start: Start, work: Coroutine[Any, Any, None]) -> None:
    """A task that starts work as it is cancelled."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        start(work)
        raise


@WAYS
async def test_it_goes_on_where_what_started_it_is_cancelled(start: Start) -> None:
    work = Work()
    task = asyncio.ensure_future(cancelled_at_work(start, work.takes(0.02)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await ended_in_background(PATIENCE)
    assert work.ended == "done"


def complaints_where_it_starts_as_the_loop_ends(start: Start, work: Coroutine[Any, Any, None]) -> list[str]:
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.ensure_future(cancelled_at_work(start, work)))
        await asyncio.sleep(0)

    return complaints_of(main)


@WAYS
def test_what_starts_while_the_loop_ends_is_done(start: Start) -> None:
    work = Work()
    assert complaints_where_it_starts_as_the_loop_ends(start, work.takes(0.02)) == []
    assert work.ended == "done"


@WAYS
def test_what_has_no_end_is_cancelled_then(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LAST_PATIENCE", 0.05)
    work = Work()
    assert complaints_where_it_starts_as_the_loop_ends(start, work.takes(60)) == []
    assert work.ended == "cancelled"


def test_that_something_could_not_be_taken_back_is_no_error() -> None:
    async def fails() -> None:
        raise LimiterUnavailableError("api", "gone")

    async def main() -> None:
        await asyncio.wait({in_background(fails())})

    assert complaints_of(main) == []


def test_an_error_is_for_those_alone_who_await_it() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        task = outliving(fails())
        with pytest.raises(ZeroDivisionError):
            await task
        await asyncio.wait({outliving(fails())})

    assert complaints_of(main) == []
