"""async-redis-rate-limiters: a semaphore for tasks."""

from __future__ import annotations

from async_redis_rate_limiters import DistributedSemaphoreManager

from benchmarks.support.use import Use


def async_semaphore(url: str, capacity: int = 5) -> Use:
    manager = DistributedSemaphoreManager(redis_url=url)
    return Use("async with manager.get_semaphore('slots', capacity): {body}", manager=manager, capacity=capacity)
