"""What the main process tells a pool process about a job, in the place of what the job's header said."""

from __future__ import annotations

from typing import Any

from steindamm.integrations.bookings import Booking


class Passing(dict[str, Any]):
    """How a job passed the gate. No message can hold one, so no sender can forge it.

    To all others it is an empty dict: a retry copies its job's headers, and takes nothing along.

    Parameters:
        booking: What the job carried.
        content_type: How its arguments were written; None where that is not known.
        error: What it fails with, instead of being run.
    """

    __slots__ = ("booking", "content_type", "error")

    def __init__(self, booking: Booking, content_type: str | None = None, error: Exception | None = None) -> None:
        super().__init__()
        self.booking = booking
        self.content_type = content_type
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        """Few bytes, for it goes with every job."""
        return _passing, (*self.booking, self.content_type, self.error)


def _passing(*written: Any) -> Passing:
    *booking, content_type, error = written
    return Passing(Booking(*booking), content_type, error)
