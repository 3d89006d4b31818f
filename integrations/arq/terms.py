"""What a job must know of the worker that runs it. The worker tells it nothing, so its settings do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class WorkerTerms:
    """How a worker treats one of its functions; as arq does by default.

    Parameters:
        retry_jobs: Whether a job can be put back into its queue.
        max_jobs: How many jobs the worker runs at once.
        timeout: Seconds after which the worker ends a job, its waiting in the worker included.
        is_own: Whether the timeout is the function's own, whatever that of the worker.
    """

    retry_jobs: bool = True
    max_jobs: int = 10
    timeout: float = 300.0
    is_own: bool = False

    @classmethod
    def of(cls, *, retry_jobs: bool, max_jobs: int, timeout: float | None) -> WorkerTerms:
        """As a worker is told them."""
        return cls(retry_jobs, max_jobs, math.inf if timeout is None else timeout)

    def at(self, ctx: Mapping[str, Any]) -> WorkerTerms:
        """Those of a job with this context: who makes a worker may give it other settings beside the fitted ones."""
        here: WorkerTerms | None = ctx.get(TERMS)
        if here is None:
            return self
        return replace(here, timeout=self.timeout, is_own=True) if self.is_own else here

    @cached_property
    def places(self) -> int:
        """How many jobs may wait in the worker: so few that others always find a free place."""
        return self.max_jobs // 2

    @cached_property
    def longest_wait(self) -> float:
        """Seconds that a job which can be put back may wait in the worker."""
        return self.timeout / 2 if self.timeout < math.inf else math.inf

    @cached_property
    def answer_within(self) -> float:
        """Seconds after which such a job waits no longer for a limiter that does not answer: it would fail."""
        return 1.5 * self.longest_wait


ARQS_TERMS = WorkerTerms()
"""Those of a worker whose settings tell nothing."""
BEGAN = "steindamm:began"
"""In a job's context: when its timeout began to run, in seconds of this process's monotonic clock."""
TERMS = "steindamm:terms"
"""In a job's context: the terms of the worker that runs it."""
