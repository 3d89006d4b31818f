"""What a pool process tells the main process when a job has heard "not now" from a server."""

from __future__ import annotations

from collections.abc import Sequence

from celery.exceptions import Ignore


class NotNow(Ignore):
    """The job has gone back to its queue; what limits it is to be closed where it lives.

    Parameters:
        pause: For how many seconds.
        names: The limiters.
    """

    def __init__(self, pause: float, names: Sequence[str]) -> None:
        self.pause = pause
        self.names = names
        super().__init__(pause, names)
