"""Twenty workers at five slots, each held for 10 ms: how soon a freed slot is taken, and by whom."""

from __future__ import annotations

import statistics

from benchmarks.support.crew import Contender, Crew, crews
from benchmarks.support.rounds import interleaved, spread
from benchmarks.support.servers import Load, load, server, version
from benchmarks.support.tables import Table, run
from tests.support.servers import Server

PROCESSES, WORKERS, CAPACITY, HOLD = 4, 5, 5, 0.01
CONTENDERS = [
    Contender("bare BLPOP and RPUSH, threads", "peers.bare:popped_slots"),
    Contender("bare BLPOP and RPUSH, tasks", "peers.bare:async_popped_slots"),
    Contender("steindamm, threads", "peers.steindamm:redis_semaphore"),
    Contender("steindamm, tasks", "peers.steindamm:async_redis_semaphore"),
    Contender("steindamm 0.11.1, threads", "peers.steindamm:redis_semaphore", is_published=True),
    Contender("steindamm 0.11.1, tasks", "peers.steindamm:async_redis_semaphore", is_published=True),
    Contender("dramatiq, polled every 5 ms", "peers.dramatiq:waiting_concurrent"),
    Contender("async-redis-rate-limiters, tasks", "peers.async_redis_rate_limiters:async_semaphore"),
]
ONE_SLOT = [
    Contender("bare BLPOP and RPUSH, threads, one slot", "peers.bare:popped_slots", {"capacity": 1}),
    Contender("steindamm, threads, one slot", "peers.steindamm:redis_semaphore", {"capacity": 1}),
    Contender("redis-py Lock, polled every 5 ms", "peers.redis_lock:lock"),
]


class Round:
    """What one contender's workers did in one round.

    Parameters:
        workers: When each use of each worker began, and when its work ended and the release began.
        seconds: How long they worked.
        capacity: How many slots there were.
        it: What the server did for each use.
    """

    def __init__(self, workers: list[list[tuple[float, float]]], seconds: float, capacity: int, it: Load) -> None:
        uses = sorted(use for worker in workers for use in worker)
        ends = sorted(ended for _, ended in uses)
        ideal = capacity * seconds / HOLD
        waits = [began - ended for (began, _), ended in zip(uses[capacity:], ends, strict=False)]
        self.used = len(uses) / ideal
        self.median = statistics.median(waits) * 1e3
        self.p95 = statistics.quantiles(waits, n=20)[-1] * 1e3
        self.fairness = max(map(len, workers)) / max(1, min(map(len, workers)))
        self.load = it


def observed(running: Server, crew: Crew, seconds: float, capacity: int) -> Round:
    workers: list[list[tuple[float, float]]] = []

    def uses() -> int:
        workers.extend(crew.record(WORKERS, seconds, HOLD))
        return sum(map(len, workers))

    it = load(running, uses)
    return Round(workers, seconds, capacity, it)


def measured(running: Server, table: Table, contenders: list[Contender], capacity: int, *, quick: bool) -> None:
    with crews(contenders, size=PROCESSES, url=running.url) as all_crews:
        every = interleaved(
            all_crews, 3 if quick else 7, lambda crew: observed(running, crew, 1.0 if quick else 4.0, capacity)
        )
    for who, rounds in every.items():
        table.add(
            who,
            spread([one.used for one in rounds]),
            spread([one.median for one in rounds]),
            spread([one.p95 for one in rounds]),
            spread([one.fairness for one in rounds]),
            statistics.median(one.load.commands for one in rounds),
            statistics.median(one.load.cpu_us for one in rounds),
        )
    table.sort(1)


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    columns = [
        "of the ideal", "hand-over p50 ms", "p95 ms", "most / fewest grants", "commands a grant",
        "Redis CPU us a grant",
    ]  # fmt: skip
    title = f"{PROCESSES * WORKERS} workers, {HOLD * 1e3:g} ms each"
    five = Table("hand-over", f"{title}, {CAPACITY} slots", columns)
    one = Table("hand-over-one", f"{title}, one slot", columns)
    with server() as running:
        measured(running, five, CONTENDERS, CAPACITY, quick=quick)
        measured(running, one, ONE_SLOT, 1, quick=quick)
        return [five, one], version(running)


if __name__ == "__main__":
    run("hand_over", measure)
