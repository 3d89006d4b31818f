"""What a limiter answers to those who wait elsewhere: jobs, and callers of `reserve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from steindamm.errors import SteindammError
    from steindamm.permits import Permit
    from steindamm.tickets import Ticket


class Answer(NamedTuple):
    """One of three things: start, come back, or ask again.

    With a permit: start after the wait. With a turn only: come back with it after the wait. With neither: ask
    again after the wait.

    Parameters:
        wait: Seconds; infinite where no wait would help.
        permit: Leave to start.
        turn: The turn (of a bucket), or the arrival number (at a semaphore), to come back with; of several limits
            asked at once, one of each that gave one.
        cost: Tokens that a booked turn stands for.
        ticket: Who waits to be handed a slot, where the asker listens.
        limiter: Of several limits asked at once, the one with the longest wait.
        error: Why no wait would help.
        without_backend: Whether it was given without asking the limiter's backend.
    """

    wait: float
    permit: Permit | None = None
    turn: float | tuple[float | None, ...] | None = None
    cost: float = 1.0
    ticket: Ticket | None = None
    limiter: str | None = None
    error: SteindammError | None = None
    without_backend: bool = False
