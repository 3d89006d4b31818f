"""What a pool process tells the main process when a job has heard "not now" from a server."""

from __future__ import annotations

from collections.abc import Mapping

from celery.exceptions import Ignore


class NotNow(Ignore):
    """The job has gone back to its queue; what limits it is to be closed where it lives.

    Parameters:
        pauses: The limiters' names, and for how many seconds.
    """

    def __init__(self, pauses: Mapping[str, float]) -> None:
        self.pauses = pauses
        super().__init__(pauses)
