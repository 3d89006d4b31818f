"""The jobs that wait in a worker, for moments only, and not so many that others find no place."""

from __future__ import annotations

from steindamm.loops import EachLoop


class WaitingRoom:
    """Counts those who wait: who is in its block does."""

    def __init__(self) -> None:
        self._taken = 0

    def __enter__(self) -> int:
        """How many wait already."""
        others = self._taken
        self._taken += 1
        return others

    def __exit__(self, *_: object) -> None:
        self._taken -= 1


_rooms = EachLoop(WaitingRoom)


def waiting_room() -> WaitingRoom:
    """The room of the worker on the running loop."""
    return _rooms.here()
