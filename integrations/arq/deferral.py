"""What sends a job back into its queue."""

from __future__ import annotations

from arq.worker import Retry


def deferral(wait: float, limiter: str) -> Retry:
    """Tells arq to put a job back. A worker that was told to retry nothing makes a failure of it, and shows the note.

    It is of arq's own class, and not of one below it: Sentry knows by the very class that this is no error to report.

    Parameters:
        wait: Seconds after which the job comes again.
        limiter: The limiter that it waits for.
    """
    retry = Retry(defer=wait)
    retry.add_note(
        f"limiter {limiter!r}: the job must wait {wait:.3f} s, and a worker with retry_jobs=False "
        "can't put it back; fit the worker's settings with rate_limited_worker, then the job waits in the worker"
    )
    retry.steindamm_defers = True  # type: ignore[attr-defined]
    return retry


def is_deferral(retry: Retry) -> bool:
    """Whether it is ours, and not the job's own."""
    return hasattr(retry, "steindamm_defers")
