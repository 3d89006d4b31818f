"""What a question that was cut short is still told: the server decides on it, though its asker was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from steindamm.background import outliving

_REST = "_steindamm_rest"


def leave_rest(cut: asyncio.CancelledError, rest: asyncio.Task[Any]) -> None:
    """Have the cancellation carry the reply that is to come to whoever is concerned by it."""
    setattr(cut, _REST, rest)


def rest_of(cut: asyncio.CancelledError) -> asyncio.Task[Any] | None:
    """The reply that is to come, if any."""
    return getattr(cut, _REST, None)


async def told_at_last(question: Coroutine[Any, Any, Any]) -> Any:
    """Ask in a task of its own, which goes on to read the reply where the asker is cancelled."""
    asking = outliving(question)
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError as cut:
        leave_rest(cut, asking)
        raise
