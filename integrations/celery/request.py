"""A job as a worker's main process sees it: it passes the gate before it gets a pool process."""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Callable
from functools import cached_property, partial
from threading import Thread
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import TimeLimitExceeded
from celery.utils.serialization import get_pickleable_exception
from celery.worker import state
from celery.worker.request import Request

from steindamm.clock import monotonic
from steindamm.errors import MaxSleepExceededError
from steindamm.integrations.bookings import HEADER, Booking
from steindamm.integrations.celery.handing_back import hand_back
from steindamm.integrations.celery.line import Line
from steindamm.integrations.celery.not_now import NotNow
from steindamm.integrations.celery.on_its_way import known_on_its_way
from steindamm.integrations.celery.passing import Passing
from steindamm.integrations.celery.waiting_room import WaitingRoom
from steindamm.integrations.decisions import Defer, Fail, Start, again, holds_slots, release
from steindamm.integrations.job_limits import Claim, JobLimit, limits_of
from steindamm.integrations.waiting import note_end, note_wait
from steindamm.permits import Permit

logger = logging.getLogger("steindamm.celery")

LOOK = 0.02
"""Seconds between two looks at a pool process that was told to end."""
DOUBT = 1.0
"""Seconds after a time limit's error in which Celery says whether the pool process is killed."""


class GatedRequest(Request):
    """Asks the gate when it is about to get a pool process, and gives back what it holds when it has ended.

    Celery makes a subclass of it for each task and overrides two methods there without calling these:
    they are wrapped as that class is made.

    Attributes:
        booking: What it carries while it waits.
        line: The semaphore's line that it stands in.
        departures: How often it has left the waiting room.
        is_settled: Whether it is decided that it may start, or is to fail.
    """

    line: Line | None = None
    departures = 0
    is_settled = False
    _is_killed = False
    _started_by: Start | None = None
    _give_back: Callable[[], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner = self._request_dict.get("headers")  # where protocol 1 has them; else a header of the sender's own
        carries = isinstance(inner, dict) and HEADER in inner
        self.booking = Booking.read((inner if carries else self._request_dict).get(HEADER))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "execute_using_pool" in own:
            cls.execute_using_pool = _gated(own["execute_using_pool"])
        if "on_success" in own:
            cls.on_success = _releasing(own["on_success"])

    @property
    def delivery(self) -> tuple[str, int]:
        """What tells this attempt to run it from others."""
        return self.id, self._request_dict.get("retries") or 0

    @property
    def job_limit(self) -> JobLimit:
        """What limits the jobs of its task."""
        return self._task.job_limit  # type: ignore[no-any-return]

    @cached_property
    def claim(self) -> Claim | None:
        """What it asks for; None where it is not limited."""
        return self.job_limit.claim(self.args, self.kwargs, self.id)

    @property
    def patience(self) -> float:
        """Seconds that it may still wait."""
        longest = self.job_limit.max_deferral
        return math.inf if longest is None else longest - self.booking.waited(time.time())

    @property
    def is_void(self) -> bool:
        """Whether it was revoked, or has expired."""
        return self.id in state.revoked or bool(self.maybe_expire())

    def settle(self, claim: Claim, decision: Start | Fail) -> None:
        """Let it run, or let it fail."""
        note_end(claim, self.booking)
        if isinstance(decision, Fail):
            self.refuse(decision.error)
            return
        self._started_by = decision
        self._pass(permit=decision.answer.permit)
        room = WaitingRoom.of(self._app)
        if room is not None and holds_slots(decision):
            room.slot_holders.add(self)
            self._give_back = partial(room.askers.of(claim.limiter).tell, partial(release, claim, decision))

    def admit(self) -> None:
        """Let it run."""
        self._pass()

    def refuse(self, error: Exception) -> None:
        """Let it fail: the pool process raises the error, so that all of Celery's failure path is taken."""
        self._pass(error=get_pickleable_exception(error))

    def give_up(self) -> None:
        """Let it fail because it has waited for too long."""
        name = self.claim.limiter.name if self.claim else self.booking.limiter
        self.refuse(MaxSleepExceededError(name, None, self.job_limit.max_deferral))

    def _pass(self, error: Exception | None = None, permit: Permit | None = None) -> None:
        self._request_dict[HEADER] = Passing(self.booking, self.content_type, error, permit)
        self.is_settled = True

    def defer(self, claim: Claim, booking: Booking, decision: Defer | None) -> None:
        """Take note that it waits, and say so.

        Parameters:
            claim: What it waits for.
            booking: What it carries from now on.
            decision: What was decided; None where nobody can tell its turn.
        """
        self.booking = booking
        note_wait(claim, booking, decision)
        name, turn = claim.limiter.name, None if decision is None else time.time() + decision.wait
        until = "" if decision is None else f", in {decision.wait:.3f}s"
        logger.info("Task %s[%s] waits for its turn at limiter %r%s", self.name, self.id, name, until)
        self.send_event("task-throttled", limiter=name, turn=turn)

    def hand_back(self, countdown: float | None = None) -> None:
        """Go back to the queue with its booking; raises what the broker's client raises, and then it has not."""
        hand_back(
            self._task,
            self._context,
            self.booking,
            args=self.args,
            kwargs=self.kwargs,
            countdown=countdown,
            content_type=self.content_type,
        )
        self._message.ack_log_error(logger, self._connection_errors)
        self.acknowledged = True
        state.task_ready(self)

    def launch(self, start: Callable[[], Any]) -> Any:
        """Give it to the pool, once it passes the gate; one that has missed its start passes anew, or is held."""
        room = WaitingRoom.of(self._app)
        while room is not None and not self._may_start:
            self._give_up_start(room)
            if not room.gate.admits(self, start):
                return None
        try:
            return known_on_its_way(start(), self.release)
        except BaseException:
            self.release()
            raise

    @property
    def _may_start(self) -> bool:
        return self.is_settled and (self._started_by is None or not self._started_by.is_missed)

    def _give_up_start(self, room: WaitingRoom) -> None:
        missed, self._started_by, self._give_back = self._started_by, None, None
        self.is_settled = False
        self._request_dict.pop(HEADER, None)
        if missed is not None and self.claim is not None:
            self.booking = again(self.claim, self.booking, missed)
            room.gate.give_back(self.claim, missed)

    def release(self) -> None:
        """Give back what it holds; a second call does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Release first, whatever Celery then does about the failure, retry or rejection."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, TimeLimitExceeded):
            self._release_after_death()
        else:
            self.release()
        if isinstance(error, NotNow):
            self._close(error)
        return super().on_failure(exc_info, *args, **kwargs)

    def _close(self, told: NotNow) -> None:
        """A pool process has heard a server's "not now", and the limiter is in the memory of this one."""
        for limiter in limits_of(self.claim.limiter) if self.claim else ():
            if limiter.name in told.pauses:
                limiter.back_off(told.pauses[limiter.name])

    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001
        """A hard time limit ends the pool process; a soft one leaves the job running."""
        if not soft:
            self._is_killed = True
            self._release_after_death()
        return super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, *args: Any) -> Any:  # noqa: FBT001
        if terminated:
            self._is_killed = True
            self._release_after_death()
        return super()._announce_revoked(reason, terminated, *args)

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> Any:
        self._is_killed = True
        self._release_after_death()
        return super()._announce_cancelled(*args, **kwargs)

    def _release_after_death(self) -> None:
        """Its pool process was told to end: it runs until that has, which Celery may find out seconds later."""
        if self._give_back is not None:
            Thread(target=self._wait_for_death, name="steindamm-death-watch", daemon=True).start()

    def _wait_for_death(self) -> None:
        """Nobody kills a process whose job raised the error of a time limit by itself."""
        give_up = monotonic() + DOUBT
        while self._give_back is not None and not has_ended(self.worker_pid):
            if not self._is_killed and monotonic() > give_up:
                break
            time.sleep(LOOK)
        self.release()


def has_ended(pid: int) -> bool:
    """Whether a process that this one has started runs no longer; a green thread has no process."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except (OSError, OverflowError):
        return True


def gated(request_class: type) -> type:
    """A request class with the gate in front of it; one of another kind than Celery's stays as it is."""
    if issubclass(GatedRequest, request_class):
        return GatedRequest
    if issubclass(request_class, GatedRequest) or not issubclass(request_class, Request):
        return request_class
    return type(request_class.__name__, (GatedRequest, request_class), {})


def _gated(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def execute_using_pool(self: GatedRequest, pool: Any, **kwargs: Any) -> Any:
        start = partial(execute, self, pool, **kwargs)
        room = WaitingRoom.of(self._app)
        if room is None:
            return start()
        room.leaves(self)
        if not self.is_settled and self.revoked():
            room.free_pool_slot()
            return None
        return self.launch(start)

    return execute_using_pool


def _releasing(on_success: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(on_success)
    def released(self: GatedRequest, *args: Any, **kwargs: Any) -> Any:
        self.release()
        return on_success(self, *args, **kwargs)

    return released
