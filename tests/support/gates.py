"""Real clients that can be made to stand still before a request, or before its reply is looked at, or be cut off."""

from __future__ import annotations

import asyncio
from struct import unpack
from threading import Event
from typing import Any

import redis
import redis.asyncio

PATIENCE = 10.0


class Stop:
    """A place at which a request of one kind stands still, once.

    Parameters:
        what: The kind of request to a bucket or a semaphore; any call of a script where it is None.
        before: Whether it stands still before it is sent, or before its reply is looked at.
    """

    def __init__(self, what: int | None, *, before: bool) -> None:
        self.what = what
        self.before = before
        self.reached = Event()
        self.go = Event()
        self.answered = Event()

    def stops(self, what: int | None, *, before: bool) -> bool:
        if what is None or before is not self.before or self.reached.is_set():
            return False
        if self.what is not None and what != self.what:
            return False
        self.reached.set()
        return True


def kind_of(args: tuple[Any, ...]) -> int | None:
    """The kind of the first request in a call of a bucket's or a semaphore's script."""
    if args[0] not in ("EVALSHA", "EVAL") or len(args) < 5 + args[2]:
        return None
    return int(unpack("<d", args[3 + args[2] + 1][:8])[0])


class Gates:
    """What holds a client's requests up."""

    stops: tuple[Stop, ...] = ()
    is_cut = False

    def stop_at(self, what: int | None, *, before: bool) -> Stop:
        """The next request of this kind stands still."""
        stop = Stop(what, before=before)
        self.stops += (stop,)
        return stop

    def _stop(self, what: int | None, *, before: bool) -> Stop | None:
        if self.is_cut and before and what is not None:
            raise redis.exceptions.ConnectionError("cut off")
        return next((stop for stop in self.stops if stop.stops(what, before=before)), None)


class GatedClient(Gates, redis.Redis):
    """A sync client with stops."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        stood = self._stand(kind_of(args), before=True)
        reply = super().execute_command(*args, **options)
        if stood is not None:
            stood.answered.set()
        self._stand(kind_of(args), before=False)
        return reply

    def _stand(self, what: int | None, *, before: bool) -> Stop | None:
        stop = self._stop(what, before=before)
        assert stop is None or stop.go.wait(PATIENCE)
        return stop


class AsyncGatedClient(Gates, redis.asyncio.Redis):
    """An async client with stops."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        stood = await self._stand(kind_of(args), before=True)
        reply = await super().execute_command(*args, **options)
        if stood is not None:
            stood.answered.set()
        await self._stand(kind_of(args), before=False)
        return reply

    async def _stand(self, what: int | None, *, before: bool) -> Stop | None:
        stop = self._stop(what, before=before)
        if stop is None:
            return None
        async with asyncio.timeout(PATIENCE):
            while not stop.go.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return stop
