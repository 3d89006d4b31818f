"""What an acquire costs where there are many names."""

from __future__ import annotations

import random
import time

import redis

from benchmarks.support.servers import load, server, version
from benchmarks.support.tables import Table, run
from steindamm import SyncTokenBucket
from tests.support.servers import Server

ASKED = 500
"""Names that are asked, drawn from all."""
SETTINGS = {"capacity": 1e6, "refill_amount": 1e6, "expiry": 3_600}
FILL = """
for number = ARGV[1], ARGV[2] do
  redis.call('SET', 'steindamm:{customer-' .. string.format('%d', number) .. '}:bucket', ARGV[3], 'PX', 3600000)
end
"""
CHUNK = 10_000


def fill(running: Server, first: int, last: int, state: bytes) -> None:
    """States as an acquire leaves them, made by the server itself."""
    for start in range(first, last, CHUNK):
        running.admin.eval(FILL, 0, start, min(start + CHUNK, last) - 1, state)


def on_redis(running: Server, names: int, times: int) -> tuple[float, float, float]:
    client = redis.Redis.from_url(running.url)
    numbers = random.sample(range(names), min(ASKED, names))
    limiters = [SyncTokenBucket(f"customer-{number}", connection=client, **SETTINGS) for number in numbers]
    for limiter in limiters:
        limiter.acquire()
    seconds = 0.0

    def uses() -> int:
        nonlocal seconds
        started = time.perf_counter()
        for index in range(times):
            limiters[index % len(limiters)].acquire()
        seconds = time.perf_counter() - started
        return times

    it = load(running, uses)
    usage = running.admin.memory_usage(f"steindamm:{{customer-{numbers[0]}}}:bucket") or 0
    return seconds / times * 1e6, it.cpu_us, usage


def in_memory(names: int, times: int, used: int) -> float:
    """Microseconds of an acquire where so many names are in use; the names up to `used` are already."""
    for number in range(used, names):
        SyncTokenBucket(f"customer-{number}", **SETTINGS).acquire()
    numbers = random.sample(range(names), min(ASKED, names))
    limiters = [SyncTokenBucket(f"customer-{number}", **SETTINGS) for number in numbers]
    started = time.thread_time()
    for index in range(times):
        limiters[index % len(limiters)].acquire()
    return (time.thread_time() - started) / times * 1e6


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    counts = [1, 100, 10_000] if quick else [1, 100, 10_000, 1_000_000]
    table = Table(
        "growth-names", "An acquire where so many names are in use",
        ["Redis: us", "Redis: CPU us", "Redis: bytes a name", "memory: us"],
    )  # fmt: skip
    with server() as running:
        first = SyncTokenBucket("customer-0", connection=redis.Redis.from_url(running.url), **SETTINGS)
        first.acquire()
        state = running.admin.get("steindamm:{customer-0}:bucket")
        filled = 1
        for names in counts:
            fill(running, filled, names, state)
            local = in_memory(names, 20_000, filled if names > 1 else 0)
            table.add(f"{names:,}", *on_redis(running, names, 2_000 if quick else 10_000), local)
            filled = names
        return [table], version(running)


if __name__ == "__main__":
    run("growth_names", measure)
