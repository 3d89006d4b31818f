"""The permit of the job that runs here: `steindamm.current_permit()`.

Workers say which job runs; each thread, and each task of an event loop, has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from steindamm.holding import Holding
from steindamm.permits import Permit


class Running:
    """A job that runs.

    Parameters:
        permit_of: Gives its permit, None if nothing limits it; called when it is asked for, once.
    """

    def __init__(self, permit_of: Callable[[], Permit | None]) -> None:
        self._permit_of = permit_of

    @cached_property
    def permit(self) -> Permit | None:
        """Its permit."""
        return self._permit_of()


_RUNNING: ContextVar[Running | None] = ContextVar("steindamm_running_job", default=None)


def running(permit_of: Callable[[], Permit | None]) -> Holding[Running | None]:
    """A block in which a job runs."""
    return Holding(_RUNNING, Running(permit_of))


def current_permit(limiter: Any = None) -> Any:
    """The permit of the job that runs here, in a limited task of Celery, Dramatiq or arq.

    A job whose true cost is known only in the end settles it so. The permit is sync in Celery and Dramatiq, and
    async in arq. It is found in the thread, or the task, that runs the job, and in tasks that this one makes.

    Example:
        >>> from steindamm import SyncTokenBucket, current_permit
        >>> from steindamm.testing import as_job
        >>> model = SyncTokenBucket("tokens of the model", capacity=90_000, refill_amount=1_500)
        >>> def ask(question):
        ...     current_permit().settle(len(question))
        >>> with as_job(model(1_000)):
        ...     ask("What is the answer?")

    Parameters:
        limiter: Of several that limit the job, the one whose permit is wanted, or its name.

    Returns:
        A `SyncTokenPermit`, `AsyncTokenPermit` or `SlotPermit`; of several limits together an `AllOfPermit`.

    Raises:
        LookupError: No limited job runs here.
        ValueError: The limiter is none of those that limit the job.
    """
    job = _RUNNING.get()
    permit = None if job is None else job.permit
    if permit is None:
        raise LookupError("current_permit is for the code of a limited job, and " + _why_none(job))
    if limiter is None:
        return permit
    name = getattr(limiter, "name", limiter)
    for part in getattr(permit, "permits", (permit,)):
        if part.name == name:
            return part
    raise ValueError(f"limiter must be one of the job's, {permit.name!r}, not {name!r}")


def _why_none(job: Running | None) -> str:
    return "none runs here" if job is None else "nothing limits the one that runs here"
