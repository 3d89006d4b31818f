"""What a request costs where the line is long: bookings at a bucket, holders and waiters of a semaphore."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis

from benchmarks.support.servers import load, server, version
from benchmarks.support.tables import Table, run
from steindamm import SyncSemaphore, SyncTokenBucket
from tests.support.servers import Server

FOREVER = 3_000.0
"""Seconds that bookings may lie ahead, and leases last, so that none ends while we measure."""


def cost(running: Server, times: int, use: Callable[[], Any]) -> tuple[float, float]:
    """Microseconds of one use, and of the server's processor for it."""
    seconds = 0.0
    use()

    def uses() -> int:
        nonlocal seconds
        started = time.perf_counter()
        for _ in range(times):
            use()
        seconds = time.perf_counter() - started
        return times

    it = load(running, uses)
    return seconds / times * 1e6, it.cpu_us


def bookings(running: Server, counts: list[int], times: int) -> Table:
    """One more job books at the end of the line, and one comes back too early."""
    table = Table("growth-bookings", "A bucket with so many bookings ahead", ["book: us", "CPU us", "come back: us"])
    limiter = SyncTokenBucket(
        "booked", capacity=1, refill_frequency=0.01, max_sleep=FOREVER, connection=redis.Redis.from_url(running.url)
    )
    limiter.acquire()
    turn = limiter.ask(horizon=FOREVER).turn
    booked = 1
    for count in counts:
        while booked < count:
            limiter.ask(horizon=FOREVER)
            booked += 1
        table.add(
            f"{count:,}",
            *cost(running, times, lambda: limiter.ask(horizon=FOREVER)),
            cost(running, times, lambda: limiter.ask(horizon=FOREVER, turn=turn))[0],
        )
        booked += times + 1
    return table


def holders(running: Server, counts: list[int], times: int) -> Table:
    """One more comes and goes, while so many hold."""
    table = Table("growth-holders", "A semaphore with so many holders", ["acquire and release: us", "CPU us"])
    limiter = SyncSemaphore(
        "held", capacity=10**6, expiry=FOREVER, max_sleep=FOREVER, connection=redis.Redis.from_url(running.url)
    )
    kept: list[Any] = []
    for count in counts:
        while len(kept) < count:
            kept.append(limiter.acquire())
        table.add(f"{count:,}", *cost(running, times, lambda: limiter.release(limiter.acquire())))
    return table


def waiters(running: Server, counts: list[int], times: int) -> Table:
    """One more stands in line and leaves it, while so many wait; and a slot is freed and handed to the first."""
    table = Table("growth-waiters", "A semaphore with so many waiters", ["stand and leave: us", "CPU us"])
    limiter = SyncSemaphore(
        "waited", capacity=1, expiry=FOREVER, max_sleep=FOREVER, connection=redis.Redis.from_url(running.url)
    )
    limiter.acquire()
    kept: list[Any] = []
    for count in counts:
        while len(kept) < count:
            kept.append(limiter.ask(slack=FOREVER))
        table.add(f"{count:,}", *cost(running, times, lambda: limiter.give_back(limiter.ask(slack=FOREVER))))
    return table


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    few, times = [10, 1_000], 300 if quick else 2_000
    with server() as running:
        tables = [
            bookings(running, [*few, 10_000] if quick else [*few, 100_000], times),
            holders(running, few if quick else [*few, 10_000], times),
            waiters(running, few if quick else [*few, 10_000], times),
        ]
        return tables, version(running)


if __name__ == "__main__":
    run("growth_lines", measure)
