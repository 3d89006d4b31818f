"""What an acquire returns."""

from __future__ import annotations


class Permit:
    """Leave to start one piece of work.

    Attributes:
        name: The limiter that gave it.
        cost: Tokens taken.
        waited: Seconds between asking and the turn.
    """

    __slots__ = ("cost", "name", "waited")

    def __init__(self, name: str, cost: float, waited: float = 0.0) -> None:
        self.name = name
        self.cost = cost
        self.waited = waited

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name!r}>"


class SlotPermit(Permit):
    """Leave to run while a slot is held.

    Example:
        >>> from steindamm import SyncSemaphore
        >>> with SyncSemaphore(name="writers", capacity=2) as permit:
        ...     permit.lost
        False

    Attributes:
        name: The semaphore that gave it.
        cost: Always 1.
        waited: Seconds between asking and the slot.
        fence: A number that only grows from one lease of this semaphore to the next (a fencing token): what
            you write to can refuse a smaller one than it has seen.
        lost: Whether the lease ran out because it could not be renewed: somebody else may hold the slot.
    """

    fence: int

    def __repr__(self) -> str:
        return f"<SlotPermit of {self.name!r}>"

    @property
    def lost(self) -> bool:
        """Whether the lease ran out because it could not be renewed: somebody else may hold the slot."""
        return False
