"""Where a worker's main process holds jobs until their turn: neither in a pool process nor in the queue.

A held job is an unacknowledged message with a timer. For each one the worker may fetch one message more, so
that other jobs pass. One that would be held for too long, and all that are held when the worker is told to
end, go back to the queue with their booking.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from celery import Celery, bootsteps
from celery.exceptions import TaskRevokedError
from celery.worker import state

from steindamm.errors import LimiterUnavailableError
from steindamm.integrations.celery.gate import Gate
from steindamm.integrations.celery.handing_back import longest_hop
from steindamm.integrations.celery.waker import Waker
from steindamm.integrations.decisions import UNAVAILABLE_WAIT

if TYPE_CHECKING:
    from steindamm.integrations.celery.request import GatedRequest

logger = logging.getLogger("steindamm.celery")

MOST_HELD = 10_000
"""Jobs for which a worker fetches others; those that wait beyond them keep it from fetching more."""


class Held(NamedTuple):
    """A job's stay in the room.

    Parameters:
        timer: What ends it.
        fetches: Whether the worker may fetch another message meanwhile.
    """

    timer: Any
    fetches: bool


class WaitingRoom(bootsteps.StartStopStep):
    """The part of a worker that holds jobs; added to the app by its first limited task."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _rooms: ClassVar[WeakKeyDictionary[Celery, WaitingRoom]] = WeakKeyDictionary()

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._consumer = consumer
        self._held: dict[GatedRequest, Held] = {}
        self._due: set[GatedRequest] = set()
        self._slots_owed = 0
        self.longest_hop = longest_hop(consumer.app)
        self.waker = Waker()
        self.gate = Gate(self)
        self._rooms[consumer.app] = self

    @classmethod
    def of(cls, app: Celery) -> WaitingRoom | None:
        """The room of the worker that this process runs; None in any other process."""
        return cls._rooms.get(app)

    def register_with_event_loop(self, _: Any, hub: Any) -> None:
        """Let other threads call into the worker's loop."""
        self.waker.watch(hub)

    def call_after(self, seconds: float, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call from the worker's timer."""
        return self._consumer.timer.call_after(seconds, call, args)

    def cancel(self, timer: Any) -> None:
        """Do not make that call."""
        self._consumer.timer.cancel(timer)

    def hold(self, request: GatedRequest, wait: float, then: Callable[[GatedRequest], None] | None = None) -> None:
        """Hold a job for so many seconds; then it asks for a pool slot again, unless something else is to be done."""
        if wait > self.longest_hop and then is None:
            self.hand_back(request, self.longest_hop)
            return
        fetches = len(self._held) < MOST_HELD
        if fetches:
            self._consumer.qos.increment_eventually()
        state.reserved_requests.discard(request)
        self._held[request] = Held(self.call_after(wait, then or self.resume, request), fetches)

    def resume(self, request: GatedRequest) -> None:
        """Let a held job ask for a pool slot."""
        if self._let_go(request):
            state.task_reserved(request)
            self._due.add(request)
            self._consumer.on_task_request(request)

    def hand_back(self, request: GatedRequest, countdown: float | None = None) -> None:
        """Send a job back to the queue; if that fails, hold it and try again."""
        self._let_go(request)
        try:
            request.hand_back(countdown)
        except Exception as error:  # noqa: BLE001
            logger.warning("Task %s[%s] can't go back to its queue now: %r", request.name, request.id, error)
            self.hold(request, UNAVAILABLE_WAIT, self.hand_back)

    def launch(self, request: GatedRequest, start: Callable[[], Any]) -> Any:
        """Give a job that was admitted to the pool."""
        self._due.discard(request)
        try:
            return start()
        except BaseException:
            request.release()
            raise

    def launch_after(self, wait: float, request: GatedRequest, start: Callable[[], Any]) -> None:
        """Give a job to the pool a little later; it keeps its pool slot."""

        def launch_now() -> None:
            del self._held[request]
            try:
                self.launch(request, start)
            except TaskRevokedError:
                self.free_pool_slot()
            except Exception:
                logger.exception("Task %s[%s] could not be started", request.name, request.id)
                self.free_pool_slot()

        self._held[request] = Held(self.call_after(wait, launch_now), fetches=False)

    def free_pool_slot(self) -> None:
        """Give the pool slot of a job that was held to the next one.

        The next one may be held as well, and come here while this call is under way: they are counted, not
        nested, for there may be thousands.
        """
        release = getattr(self._consumer.controller, "_quick_release", None)
        if release is None:
            return
        self._slots_owed += 1
        if self._slots_owed > 1:
            return
        while self._slots_owed:
            release()
            self._slots_owed -= 1

    def stop(self, consumer: Any) -> None:
        """Let all go: when the worker ends back to the queue, from where another takes them at their turn.

        Where the connection is lost, the broker delivers them again, without their booking: the turns go back.
        """
        waiting = sorted((*self._held, *self._due), key=lambda request: request.booking.turn or 0.0)
        for held in self._held.values():
            self.cancel(held.timer)
        self._held.clear()
        self._due.clear()
        self.gate.close()
        for request in waiting:
            request.release()
        if consumer.blueprint.state == bootsteps.CLOSE:
            _leave(waiting)
        else:
            _give_turns_back(waiting)

    def _let_go(self, request: GatedRequest) -> bool:
        held = self._held.pop(request, None)
        if held is None:
            return False
        self.cancel(held.timer)
        if held.fetches:
            self._consumer.qos.decrement_eventually()
        return True


def _leave(waiting: list[GatedRequest]) -> None:
    for request in waiting:
        try:
            request.hand_back()
        except Exception as error:  # noqa: BLE001
            logger.warning("Waiting tasks are left to the broker, which delivers them again: %r", error)
            return


def _give_turns_back(waiting: list[GatedRequest]) -> None:
    for request in reversed(waiting):
        try:
            request.give_turn_back()
        except LimiterUnavailableError as error:
            logger.warning("The turns of waiting tasks are lost: %s", error)
            return
