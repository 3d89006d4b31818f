"""The jobs that wait in a worker, for moments only, and not so many that others find no place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steindamm.loops import EachLoop


class WaitingRoom:
    """Counts those who wait."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def place(self, places: int) -> Iterator[bool]:
        """Wait here; gives whether one of so many places was free."""
        free = self._taken < places
        self._taken += 1
        try:
            yield free
        finally:
            self._taken -= 1


_rooms = EachLoop(WaitingRoom)


def waiting_room() -> WaitingRoom:
    """The room of the worker on the running loop."""
    return _rooms.here()
