"""Hears of slots that are handed to this process: one subscription a client, however many wait.

Nobody waits for the subscription to stand. What is missed before, or while it is cut, is found when the
waiters renew their presence, which they do at once when it stands (again).
"""

from __future__ import annotations

import asyncio
import logging
from threading import Lock, Thread
from time import sleep
from typing import TYPE_CHECKING, Any

from steindamm.backends.redis.subscriptions import AsyncSubscription, Message, SyncSubscription
from steindamm.clock import monotonic
from steindamm.forks import begin_anew_in_child
from steindamm.loops import must_end
from steindamm.tickets import PROCESS, Ticket

if TYPE_CHECKING:
    from steindamm.backends.redis.links import AsyncLink, SyncLink

logger = logging.getLogger("steindamm")
CHANNEL = "steindamm:{}"
PAUSE = 0.2
"""Seconds before a subscription that was cut is made again."""
LISTEN = 5.0
"""Seconds to listen at a time; a message ends it at once."""
QUIET = 10.0
"""Seconds of silence after which the server is asked whether it is there."""
IDLE = 30.0
"""Seconds without a waiter after which nobody listens any more."""


class Hearers:
    """The tickets that wait for a hand-over, by id."""

    _link: Any

    def __init__(self) -> None:
        self.tickets: dict[str, Ticket] = {}
        self._needed_at = self._heard_at = monotonic()
        self._complained = False

    def _is_idle(self) -> bool:
        if self.tickets:
            self._needed_at = monotonic()
        return monotonic() > self._needed_at + IDLE

    def _hear(self, message: Message) -> None:
        """Hand the slot that a message speaks of to its ticket.

        One that doubts it asks the server first; a message without a slot tells that there is news.
        """
        self._heard_at = monotonic()
        self._complained = False
        if message.kind != "message":
            return
        who, _, fence = message.text.rpartition(" ")
        ticket = self.tickets.get(who)
        if ticket is None or not fence.isdigit():
            return
        if fence == "0" or not ticket.hears_truly():
            self._link.watch.hurry()
        elif ticket.hand(int(fence)):
            self.tickets.pop(who, None)

    def _is_quiet(self) -> bool:
        """Whether it is time to ask if the server is there."""
        silence = monotonic() - self._heard_at
        if silence > 2 * QUIET:
            raise TimeoutError
        return silence > QUIET

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            logger.warning("hand-overs are not heard for now: %s", type(error).__name__)
        self._complained = True


class SyncHearing(Hearers):
    """A thread that listens, for sync semaphores."""

    def __init__(self, link: SyncLink) -> None:
        super().__init__()
        self._link = link
        self.begin()
        begin_anew_in_child(self)

    def begin(self) -> None:
        """Hear of nothing yet; a child listens for itself, under its own name."""
        self.tickets.clear()
        self._starting = Lock()
        self._thread: Thread | None = None

    def listen(self) -> None:
        """Listen from now on."""
        self._needed_at = monotonic()
        with self._starting:
            if self._thread is None:
                thread = Thread(target=self._run, name="steindamm-hand-overs", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while self._is_needed():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001
                self._complain(error)
                sleep(PAUSE)

    def _is_needed(self) -> bool:
        with self._starting:
            if self._is_idle():
                self._thread = None
            return self._thread is not None

    def _listen(self) -> None:
        self._heard_at = monotonic()
        subscription = SyncSubscription(self._link.client, CHANNEL.format(PROCESS.name), LISTEN)
        try:
            while not self._is_idle():
                message = subscription.next()
                if message is not None:
                    self._hear(message)
                    if message.kind == "subscribe":
                        self._link.watch.hurry()
                elif self._is_quiet():
                    subscription.ping()
        finally:
            subscription.close()


class AsyncHearing(Hearers):
    """A task that listens, for async semaphores."""

    def __init__(self, link: AsyncLink) -> None:
        super().__init__()
        self._link = link
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Listen from now on."""
        self._needed_at = monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="steindamm-hand-overs")

    async def _run(self) -> None:
        while self._is_needed():
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001
                self._complain(error)
                await asyncio.sleep(PAUSE)

    def _is_needed(self) -> bool:
        return not (self._is_idle() or must_end())

    async def _listen(self) -> None:
        self._heard_at = monotonic()
        subscription = await AsyncSubscription.to(self._link.client, CHANNEL.format(PROCESS.name), LISTEN)
        try:
            while self._is_needed():
                message = await subscription.next()
                if message is not None:
                    self._hear(message)
                    if message.kind == "subscribe":
                        self._link.watch.hurry()
                elif self._is_quiet():
                    await subscription.ping()
        finally:
            await subscription.close()
