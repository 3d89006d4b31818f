"""What the main process tells a pool process about a job, in the place of what the job's header said."""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

from steindamm.integrations.bookings import Booking
from steindamm.integrations.job_limits import limits_of
from steindamm.permits import Permit, SlotPermit
from steindamm.several_limits import AllOfPermit
from steindamm.stand_ins import Nobody, SyncStandInPermit
from steindamm.token_bucket import TokenBucket
from steindamm.visits import Visit

Packed: TypeAlias = tuple[float, ...]
"""A permit as few numbers: how long it was waited for, whether the backend gave it, and each limit's cost or fence."""


class Passing(dict[str, Any]):
    """How a job passed the gate. No message can hold one, so no sender can forge it.

    To all others it is an empty dict: a retry copies its job's headers, and takes nothing along.

    Parameters:
        booking: What the job carried.
        content_type: How its arguments were written; None where that is not known.
        error: What it fails with, instead of being run.
        permit: What lets it start; packed, where that is in another process; None where nothing limits it.
    """

    __slots__ = ("booking", "content_type", "error", "permit")

    def __init__(
        self,
        booking: Booking,
        content_type: str | None = None,
        error: Exception | None = None,
        permit: Permit | Packed | None = None,
    ) -> None:
        super().__init__()
        self.booking = booking
        self.content_type = content_type
        self.error = error
        self.permit = permit

    def __reduce__(self) -> tuple[Any, ...]:
        """Few bytes, for it goes with every job."""
        permit = packed(self.permit) if isinstance(self.permit, Permit) else self.permit
        return _passing, (*self.booking, self.content_type, self.error, permit)

    def reaches(self, limiter: Any) -> bool:
        """Whether what limits the job can be reached from here: one in memory, only in the process that asked it."""
        return not isinstance(self.permit, tuple) or not is_local(limiter)

    def permit_at(self, limiter: Any) -> Permit | None:
        """The permit; this is its limiter."""
        return unpacked(self.permit, limiter) if isinstance(self.permit, tuple) else self.permit


def _passing(*written: Any) -> Passing:
    *booking, content_type, error, permit = written
    return Passing(Booking(*booking), content_type, error, permit)


class DistantPermit(Permit):
    """Leave to start, from a bucket in the memory of the worker's main process."""

    __slots__ = ()

    def settle(self, actual: float) -> NoReturn:
        """The bucket is out of reach."""
        raise TypeError(
            f"a permit of {self.name!r} can't be settled in a pool process, for the limiter lives in the memory of the "
            "main process: give it a connection"
        )


def packed(permit: Permit) -> Packed:
    """A permit as it travels."""
    parts = getattr(permit, "permits", (permit,))
    return (
        permit.waited,
        not permit.without_backend,
        *(part.fence if isinstance(part, SlotPermit) else part.cost for part in parts),
    )


def unpacked(travelled: Packed, limiter: Any) -> Permit:
    """The permit that a limiter gave, in another process.

    Raises:
        LookupError: This is another limiter: the function that tells it from the job's arguments says one thing
            here, and another one there.
    """
    waited, is_counted, *numbers = travelled
    limiters = limits_of(limiter)
    if len(limiters) != len(numbers):
        raise LookupError("the permit is lost: the function that tells the job's limiter tells another one each time")
    make = _part if is_counted else _uncounted_part
    parts = [make(each, number, waited) for each, number in zip(limiters, numbers, strict=True)]
    if limiters[0] is limiter:
        return parts[0]
    permit = AllOfPermit(limiter.name, parts, Visit(()))
    permit.waited = waited
    return permit


def is_local(limiter: Any) -> bool:
    """Whether it lives in a process's memory."""
    return limits_of(limiter)[0].connection is None


def _part(limiter: Any, number: float, waited: float) -> Permit:
    if not isinstance(limiter, TokenBucket):
        return _slot(limiter, number, waited)
    if is_local(limiter):
        return DistantPermit.of(limiter.name, number, waited)
    return limiter.permit_for(number, waited)


def _uncounted_part(limiter: Any, number: float, waited: float) -> Permit:
    """Given without the backend, which has nothing to settle."""
    if isinstance(limiter, TokenBucket):
        return SyncStandInPermit.of(limiter.name, number, waited, Nobody())
    slot = _slot(limiter, number, waited)
    slot.without_backend = True
    return slot


def _slot(limiter: Any, fence: float, waited: float) -> SlotPermit:
    slot = SlotPermit.of(limiter.name, 1.0, waited)
    slot.fence = int(fence)
    return slot
