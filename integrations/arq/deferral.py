"""What sends a job back into its queue."""

from __future__ import annotations

from arq.worker import Retry


class Deferral(Retry):
    """Tells arq to put a job back. A worker that was told to retry nothing makes a failure of it, and shows this text.

    Parameters:
        wait: Seconds after which the job comes again.
        limiter: The limiter that it waits for.
    """

    def __init__(self, wait: float, limiter: str) -> None:
        super().__init__(defer=wait)
        self._wait = wait
        self._limiter = limiter

    def __repr__(self) -> str:
        return (
            f"limiter {self._limiter!r}: the job must wait {self._wait:.3f} s, and a worker with retry_jobs=False "
            "can't put it back; fit the worker's settings with rate_limited_worker, then the job waits in the worker"
        )
