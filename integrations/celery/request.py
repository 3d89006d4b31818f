"""A job as a worker's main process sees it: it passes the gate before it gets a pool process."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import TaskRevokedError
from celery.utils.serialization import get_pickleable_exception
from celery.worker import state
from celery.worker.request import Request

from steindamm.integrations.bookings import HEADER, Booking
from steindamm.integrations.celery.handing_back import hand_back
from steindamm.integrations.celery.passing import FAILURE, PASSED
from steindamm.integrations.celery.waiting_room import WaitingRoom
from steindamm.integrations.decisions import Defer, Start, release
from steindamm.integrations.job_limits import Claim, JobLimit
from steindamm.sync_token_bucket import SyncTokenBucket

logger = logging.getLogger("steindamm.celery")

DEATH_SECONDS = 1.0
"""A pool process that is told to end is killed a tenth of a second later; its job runs until then."""


class GatedRequest(Request):
    """Asks the gate when it is about to get a pool process, and gives back what it holds when it has ended.

    Celery makes a subclass of it for each task and overrides two methods there without calling these:
    they are wrapped as that class is made.
    """

    admitted = False
    _held: tuple[Claim, Start] | None = None
    _deferral: tuple[Claim, Defer] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.booking = Booking.read(self._request_dict.get(HEADER))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "execute_using_pool" in own:
            cls.execute_using_pool = _gated(own["execute_using_pool"])
        if "on_success" in own:
            cls.on_success = _releasing(own["on_success"])

    @property
    def job_limit(self) -> JobLimit:
        """What limits the jobs of its task."""
        return self._task.job_limit  # type: ignore[no-any-return]

    def claim(self) -> Claim | None:
        """What it asks for; None where it is not limited."""
        return self.job_limit.claim(self.args, self.kwargs)

    def admit(self, claim: Claim | None = None, start: Start | None = None) -> None:
        """Let it run; it holds what it was given until it has ended."""
        self._tell({PASSED: self.booking.written()})
        if claim is not None and start is not None:
            self._held = (claim, start)

    def refuse(self, error: Exception) -> None:
        """Let it fail: the pool process raises the error, so that all of Celery's failure path is taken."""
        self._tell({FAILURE: get_pickleable_exception(error)})

    def _tell(self, passing: dict[str, Any]) -> None:
        self._request_dict[HEADER] = passing
        self.admitted = True

    def defer(self, claim: Claim, deferral: Defer) -> None:
        """Take note that it waits, and say so."""
        self.booking = deferral.booking
        self._deferral = (claim, deferral)
        wait, limiter = deferral.wait, claim.limiter.name
        logger.info("Task %s[%s] waits for its turn at limiter %r, in %.3fs", self.name, self.id, limiter, wait)
        self.send_event("task-throttled", limiter=limiter, turn=time.time() + wait)

    @property
    def patience(self) -> float:
        """Seconds that it may still wait."""
        longest = self.job_limit.max_deferral
        return math.inf if longest is None else longest - self.booking.waited(time.time())

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
        self.acknowledge()
        state.task_ready(self)

    def give_turn_back(self) -> None:
        """Return a booked turn that it will not come back for; a place in a semaphore's line is the line's."""
        deferral, self._deferral = self._deferral, None
        if deferral is not None and isinstance(deferral[0].limiter, SyncTokenBucket) and deferral[1].answer:
            deferral[0].limiter.give_back(deferral[1].answer)

    def release(self) -> None:
        """Give back what it holds; a second call does nothing."""
        held, self._held = self._held, None
        if held is not None:
            release(*held)

    def release_when_killed(self) -> None:
        """Give back what it holds once the pool process that was told to end has ended."""
        room = WaitingRoom.of(self._app)
        if room is None:
            self.release()
        elif self._held is not None:
            room.call_after(DEATH_SECONDS, self.release)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Release first, whatever Celery then does about the failure, retry or rejection."""
        if isinstance(exc_info.exception, TimeLimitExceeded):
            self.release_when_killed()
        else:
            self.release()
        return super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001
        """A hard time limit ends the pool process; a soft one leaves the job running."""
        if not soft:
            self.release_when_killed()
        return super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, *args: Any) -> Any:  # noqa: FBT001
        if terminated:
            self.release_when_killed()
        else:
            self.release()
        return super()._announce_revoked(reason, terminated, *args)

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> Any:
        self.release_when_killed()
        return super()._announce_cancelled(*args, **kwargs)


def _gated(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def execute_using_pool(self: GatedRequest, pool: Any, **kwargs: Any) -> Any:
        start = functools.partial(execute, self, pool, **kwargs)
        room = WaitingRoom.of(self._app)
        if room is None:
            return start()
        if not self.admitted:
            if self.revoked():
                raise TaskRevokedError(self.id)
            if not room.gate.admits(self, start):
                return None
        return room.launch(self, start)

    return execute_using_pool


def _releasing(on_success: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(on_success)
    def released(self: GatedRequest, *args: Any, **kwargs: Any) -> Any:
        self.release()
        return on_success(self, *args, **kwargs)

    return released
