"""aiolimiter: a leaky bucket in memory, for tasks."""

from __future__ import annotations

from aiolimiter import AsyncLimiter

from benchmarks.support.use import Use


def async_limiter() -> Use:
    return Use("async with limiter: {body}", limiter=AsyncLimiter(1_000_000, 1))
