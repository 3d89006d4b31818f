"""Hears of slots that are handed to this process: one subscription a client, however many wait.

What is missed while the subscription is cut is found when the waiters renew their presence, which they do
at once after it is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from steindamm.backends.redis.watch import SYNC_WATCH, async_watch
from steindamm.errors import LimiterUnavailableError
from steindamm.tickets import PROCESS, Ticket

if TYPE_CHECKING:
    from steindamm.backends.redis.links import AsyncLink, SyncLink

logger = logging.getLogger("steindamm")
FIRST_WORD = 5.0
"""Seconds to wait for the subscription before the wait itself begins."""
PAUSE = 0.2
LISTEN = 1.0
IDLE = 30.0
"""Seconds without a waiter after which nobody listens any more."""


class Hearers:
    """The tickets that wait for a hand-over, by id."""

    def __init__(self) -> None:
        self.tickets: dict[str, Ticket] = {}
        self._needed_at = monotonic()

    def _is_idle(self) -> bool:
        if self.tickets:
            self._needed_at = monotonic()
        return monotonic() > self._needed_at + IDLE

    def hear(self, message: dict[str, Any] | None) -> None:
        """Hand the slot that a message speaks of to its ticket."""
        if message is None or message["type"] != "message":
            return
        data = message["data"]
        who, _, fence = (data.decode() if isinstance(data, bytes) else str(data)).partition(" ")
        ticket = self.tickets.pop(who, None)
        if ticket is not None and fence.isdigit():
            ticket.hand(float(fence))


class SyncHearing(Hearers):
    """A thread that listens, for sync semaphores."""

    _all: ClassVar[WeakSet[SyncHearing]] = WeakSet()

    def __init__(self, link: SyncLink) -> None:
        super().__init__()
        self._link = link
        self._begin()
        self._all.add(self)

    def _begin(self) -> None:
        self.tickets.clear()
        self._starting = Lock()
        self._ready = Event()
        self._thread: Thread | None = None

    @classmethod
    def after_fork(cls) -> None:
        """A child listens for itself, under its own name."""
        for hearing in cls._all:
            hearing._begin()

    @property
    def is_up(self) -> bool:
        """Whether a hand-over would be heard."""
        return self._ready.is_set()

    def start(self, name: str) -> None:
        """Listen from now on; returns when the subscription stands."""
        self._needed_at = monotonic()
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="steindamm-hand-overs", daemon=True)
                self._thread.start()
        if not self._ready.wait(FIRST_WORD):
            raise LimiterUnavailableError(name, "no subscription")

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001
                logger.warning("hand-overs are not heard for now: %s", type(error).__name__)
            self._ready.clear()
            with self._starting:
                if self._is_idle():
                    self._thread = None
                    return
            sleep(PAUSE)

    def _listen(self) -> None:
        pubsub = self._link.client.pubsub()  # type: ignore[no-untyped-call]
        try:
            pubsub.subscribe(f"steindamm:{PROCESS.name}")
            while not self._is_idle():
                message = pubsub.get_message(timeout=LISTEN)
                if message and message["type"] == "subscribe":
                    self._ready.set()
                    SYNC_WATCH.hurry()
                self.hear(message)
        finally:
            pubsub.close()


os.register_at_fork(after_in_child=SyncHearing.after_fork)


class AsyncHearing(Hearers):
    """A task that listens, for async semaphores; it ends when nobody has waited for a while."""

    def __init__(self, link: AsyncLink) -> None:
        super().__init__()
        self._link = link
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether a hand-over would be heard."""
        return self._ready.is_set() and self._task is not None and not self._task.done()

    async def start(self, name: str) -> None:
        """Listen from now on; returns when the subscription stands."""
        self._needed_at = monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await asyncio.wait_for(self._ready.wait(), FIRST_WORD)
        except TimeoutError:
            raise LimiterUnavailableError(name, "no subscription") from None

    async def _run(self) -> None:
        while not self._is_idle():
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001
                logger.warning("hand-overs are not heard for now: %s", type(error).__name__)
                await asyncio.sleep(PAUSE)
            finally:
                self._ready.clear()

    async def _listen(self) -> None:
        pubsub = await self._link.pubsub()
        try:
            await pubsub.subscribe(f"steindamm:{PROCESS.name}")
            while not self._is_idle():
                message = await pubsub.get_message(timeout=LISTEN)
                if message and message["type"] == "subscribe":
                    self._ready.set()
                    async_watch().hurry()
                self.hear(message)
        finally:
            await pubsub.aclose()
