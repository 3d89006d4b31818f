"""Where a worker's main process holds jobs until their turn: neither in a pool process nor in the queue.

A held job is an unacknowledged message with a timer. For each one the worker may fetch one message more, so
that other jobs pass. One that would be held for too long, and all that are held when the worker is told to
end, go back to the queue with their booking.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from celery import Celery, bootsteps, signals
from celery.exceptions import TaskRevokedError
from celery.worker import state
from kombu.exceptions import OperationalError

from steindamm.integrations.bookings import Booking
from steindamm.integrations.celery.asking import Askers
from steindamm.integrations.celery.gate import Gate
from steindamm.integrations.celery.handing_back import LEAST_DELAY, longest_hop
from steindamm.integrations.celery.loop_asking import LoopAskers
from steindamm.integrations.celery.process_slots import count_slots_of_processes
from steindamm.integrations.celery.refetching import restore_beside
from steindamm.integrations.celery.thread_slots import ThreadSlots
from steindamm.integrations.celery.waker import Waker
from steindamm.integrations.decisions import UNAVAILABLE_WAIT

if TYPE_CHECKING:
    from steindamm.integrations.celery.request import GatedRequest

logger = logging.getLogger("steindamm.celery")

MOST_HELD = 10_000
"""Jobs for which a worker fetches others, unless `worker_eta_task_limit` says less; those that wait beyond them
keep it from fetching more."""
NO_MORE = (
    "With quorum queues a worker may not fetch more while it holds jobs, so those that wait for a slot of a semaphore "
    "may keep others out: give them a queue and a worker of their own"
)
LAST_CALLS = 2.0
"""Seconds that a worker which ends waits for its last calls to limiters."""


class Held(NamedTuple):
    """A job's stay in the room.

    Parameters:
        timer: What ends it; None once it has gone off.
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
        self._most_held = consumer.app.conf.get("worker_eta_task_limit") or MOST_HELD
        self._brokers_errors = (OperationalError, OSError, *consumer.channel_errors)
        self._changing = Lock()
        self._held: dict[GatedRequest, Held] = {}
        self._due: set[GatedRequest] = set()
        self._launching: set[GatedRequest] = set()
        self.slot_holders: WeakSet[GatedRequest] = WeakSet()
        self._remembered: dict[tuple[str, int], Booking] = {}
        self._slots_owed = 0
        self._frees_slots = False
        self.longest_hop = self._longest_stay = longest_hop(consumer.app)
        self.waker = Waker()
        self.askers = Askers(self.waker)
        self.loop_askers = LoopAskers(self.askers, self.waker, consumer.timer)
        self.gate = Gate(self)
        self._thread_slots = ThreadSlots(consumer, self.waker)
        restore_beside(consumer, lambda: sum(held.fetches for held in tuple(self._held.values())))
        signals.worker_shutdown.connect(self._make_last_calls)
        self._rooms[consumer.app] = self

    @classmethod
    def of(cls, app: Celery) -> WaitingRoom | None:
        """The room of the worker that runs in this process; None where none does."""
        return cls._rooms.get(app)

    def start(self, consumer: Any) -> None:
        """The pool has started by now, and it is known what the broker can do.

        Where it delays jobs itself, it lets nobody change how many a worker may fetch: then none is held that it could
        delay, for it would keep others out.
        """
        count_slots_of_processes(consumer, lambda: len(self._launching))
        self._thread_slots.count()
        if fetches_no_more(consumer):
            self._longest_stay = LEAST_DELAY
            logger.warning("%s", NO_MORE)

    def register_with_event_loop(self, _: Any, hub: Any) -> None:
        """Let other threads call into the worker's loop."""
        self.waker.watch(hub)
        self.loop_askers.watch(hub)

    @property
    def has_free_slots(self) -> bool:
        """Whether the pool could start another job right now."""
        controller = self._consumer.controller
        counts_slots = self._consumer.on_task_request == getattr(controller, "_process_task_sem", None)
        return counts_slots and bool(controller.semaphore.value > 0)

    def holds(self, job: GatedRequest) -> bool:
        """Whether a job is here."""
        return job in self._held

    def hold(self, job: GatedRequest, wait: float) -> None:
        """Hold a job for so many seconds; then it asks for a pool slot again."""
        if wait > self._longest_stay:
            self.hand_back(job, min(wait, self.longest_hop))
        else:
            self._keep(job, wait, self.resume)

    def hold_open(self, job: GatedRequest) -> None:
        """Hold a job until somebody resumes it; if nobody does it fails, or goes back to the queue, in time."""
        self._keep(job, min(job.patience, self.longest_hop), self._end_long_stay)

    def resume(self, job: GatedRequest) -> None:
        """Let a held job ask for a pool slot, if it is still here."""
        if self.let_go(job):
            self.send_on(job)

    def send_on(self, job: GatedRequest) -> None:
        """Let a job that was let go ask for a pool slot."""
        self._due.add(job)
        self._start(job, partial(self._consumer.on_task_request, job))

    def let_go(self, job: GatedRequest) -> bool:
        """Hold a job no longer; False if it was not here."""
        with self._changing:
            held = self._held.pop(job, None)
        if held is None:
            return False
        job.departures += 1
        self._cancel(held)
        if held.fetches:
            self._consumer.qos.decrement_eventually()
        return True

    def hand_back(self, job: GatedRequest, countdown: float | None = None) -> None:
        """Send a job back to the queue; hold it and try again if the broker fails, and let it fail if it can't go."""
        self.let_go(job)
        try:
            job.hand_back(countdown)
        except self._brokers_errors as error:
            logger.warning("Task %s[%s] can't go back to its queue now: %r", job.name, job.id, error)
            self._keep(job, UNAVAILABLE_WAIT, self.hand_back)
        except Exception as error:  # noqa: BLE001
            job.refuse(error)
            self.send_on(job)

    def awaits(self, job: GatedRequest) -> None:
        """A job that has its pool slot is asked about."""
        self._due.add(job)
        self._launching.add(job)

    def leaves(self, job: GatedRequest) -> None:
        """A job that was due has got its pool slot, or its answer."""
        self._due.discard(job)
        self._launching.discard(job)

    def launch(self, job: GatedRequest, start: Callable[[], Any]) -> None:
        """Give a job that has its pool slot to the pool."""
        if not self._start(job, partial(job.launch, start)):
            self.free_pool_slot()

    def launch_after(self, wait: float, job: GatedRequest, start: Callable[[], Any]) -> None:
        """Give a job to the pool in so many seconds; it keeps its pool slot."""

        def launch_now(_: GatedRequest) -> None:
            self._launching.discard(job)
            self.let_go(job)
            self.launch(job, start)

        self._launching.add(job)
        self._keep(job, wait, launch_now)

    def free_pool_slot(self) -> None:
        """Give the pool slot of a job that was held to the next one.

        The next one may be held as well, and come here while this call is under way: they are counted, not
        nested, for there may be thousands.
        """
        release = getattr(self._consumer.controller, "_quick_release", None)
        if release is None:
            return
        self._slots_owed += 1
        if self._frees_slots:
            return
        self._frees_slots = True
        try:
            while self._slots_owed:
                self._slots_owed -= 1
                release()
        finally:
            self._frees_slots = False

    def recall(self, job: GatedRequest) -> None:
        """Give a job that was held here when the connection was lost the booking that it had."""
        booking = self._remembered.pop(job.delivery, None) if self._remembered else None
        if booking is not None and not job.booking.deferrals:
            job.booking = booking

    def stop(self, consumer: Any) -> None:
        """Let all go: when the worker ends back to the queue, from where another takes them at their turn.

        Where the connection is lost, the broker delivers them again, without their bookings: these are remembered.
        """
        waiting = sorted((*self._held, *self._due), key=lambda job: job.booking.place)
        for held in self._held.values():
            self._cancel(held)
        self._held.clear()
        self._due.clear()
        self._launching.clear()
        self.gate.close()
        for job in waiting:
            job.departures += 1
            job.release()
        if consumer.blueprint.state == bootsteps.CLOSE:
            _leave(waiting)
            return
        self._remembered = {job.delivery: job.booking for job in waiting}
        for job in waiting:
            state.task_ready(job)

    terminate = stop

    def _keep(self, job: GatedRequest, wait: float, then: Callable[[GatedRequest], None]) -> None:
        state.reserved_requests.discard(job)
        fetches = len(self._held) < self._most_held and self._fetches_more()
        with self._changing:
            timer = self._consumer.timer.call_after(max(0.0, wait), self._ring, (job, then))
            self._held[job] = Held(timer, fetches)

    def _ring(self, job: GatedRequest, then: Callable[[GatedRequest], None]) -> None:
        """A timer has gone off. It must not be cancelled from now on: on gevent it is who calls."""
        with self._changing:
            held = self._held.get(job)
            if held is None:
                return
            self._held[job] = held._replace(timer=None)
        then(job)

    def _cancel(self, held: Held) -> None:
        if held.timer is not None:
            self._consumer.timer.cancel(held.timer)

    def _start(self, job: GatedRequest, start: Callable[[], Any]) -> bool:
        """Start a job from the loop's timer, which no error must reach; False if it did not start."""
        state.task_reserved(job)
        try:
            start()
        except TaskRevokedError:
            return False
        except Exception:
            logger.exception("Task %s[%s] could not be started", job.name, job.id)
            return False
        if job.acknowledged:  # it has run, in this very thread, and the acknowledgement waits for the loop
            self.waker.turn()
        return True

    def _fetches_more(self) -> bool:
        """Let the worker fetch one message more, unless it is set to fetch no more, or any number."""
        qos = self._consumer.qos
        before = qos.value
        return qos.increment_eventually() > before  # type: ignore[no-any-return]

    def _end_long_stay(self, job: GatedRequest) -> None:
        if job.patience > 0:
            self.hand_back(job)
        elif self.let_go(job):
            job.give_up()
            self.send_on(job)

    def _make_last_calls(self, **_: Any) -> None:
        """What has run by now has given its slot back; what the pool never took up has not."""
        for job in tuple(self.slot_holders):
            job.release()
        self.loop_askers.finish(LAST_CALLS)
        self.askers.finish(LAST_CALLS)


def _leave(waiting: list[GatedRequest]) -> None:
    for job in waiting:
        try:
            job.hand_back()
        except OperationalError as error:
            logger.warning("Waiting tasks are left to the broker, which delivers them again: %r", error)
            return
        except Exception as error:  # noqa: BLE001
            logger.warning("Task %s[%s] is left to the broker: %r", job.name, job.id, error)


def fetches_no_more(consumer: Any) -> bool:
    """Whether Celery fixes what a worker may fetch, as it has to for RabbitMQ's quorum queues, and does from 5.5 on."""
    is_rabbitmq = not consumer.connection.qos_semantics_matches_spec
    kinds = [(queue.queue_arguments or {}).get("x-queue-type") for queue in consumer.app.amqp.queues.values()]
    return is_rabbitmq and "quorum" in kinds and bool(consumer.app.conf.get("worker_detect_quorum_queues"))
