"""The jobs that wait in a worker, for moments only, and not so many that others find no place."""

from __future__ import annotations

from steindamm.loops import EachLoop


class WaitingRoom:
    """Counts those who wait: who is in its block does."""

    def __init__(self) -> None:
        self._taken = 0

    def has_place(self, places: int) -> bool:
        """Whether one of so many places is free."""
        return self._taken < places

    def __enter__(self) -> None:
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        self._taken -= 1


_rooms = EachLoop(WaitingRoom)


def waiting_room() -> WaitingRoom:
    """The room of the worker on the running loop."""
    return _rooms.here()
