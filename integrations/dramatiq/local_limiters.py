"""Says so where a limit holds for less than it seems to."""

from __future__ import annotations

import logging
import multiprocessing
import re
from collections.abc import Iterable

from steindamm.sync_semaphore import SyncLocalSemaphore
from steindamm.sync_token_bucket import SyncLocalTokenBucket

logger = logging.getLogger("steindamm.dramatiq")

LOCAL = (SyncLocalTokenBucket, SyncLocalSemaphore)


def warn_of_local(limiters: Iterable[object]) -> None:
    """Warn of limiters in memory where Dramatiq's command line has started several processes."""
    if not _is_second_process():
        return
    each = (part for limiter in limiters for part in getattr(limiter, "limiters", [limiter]))
    for name in sorted({limiter.name for limiter in each if isinstance(limiter, LOCAL)}):
        logger.warning(
            "limiter %r lives in memory: each worker process holds its limit for itself, and all of them together"
            " exceed it; give it a connection= to Redis, or run one process (--processes 1)",
            name,
        )


def _is_second_process() -> bool:
    """Only the second process knows for certain that there are several; so there is one warning, not one from each."""
    return re.search(r"[-:]2$", multiprocessing.current_process().name) is not None
