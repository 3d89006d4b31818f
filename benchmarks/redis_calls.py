"""Limiters on Redis, nobody else asking: how many times a bare EVALSHA one use takes, and what it costs the server."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.support.crew import Contender, Crew, crews
from benchmarks.support.rounds import call_times, ratios, spread
from benchmarks.support.servers import Load, load, server, version
from benchmarks.support.tables import Table, run
from tests.support.servers import Server

TB, GCRA = {"algorithm": "token bucket"}, {"algorithm": "gcra"}
BARE = "bare EVALSHA"
SYNC_LIMIT = Contender(BARE, "peers.bare:evalsha")
ASYNC_LIMIT = Contender(BARE, "peers.bare:async_evalsha")
SYNC_RATES = [
    SYNC_LIMIT,
    Contender("steindamm, token bucket", "peers.steindamm:redis_bucket"),
    Contender("steindamm 0.11.1, token bucket", "peers.steindamm:redis_bucket", is_published=True),
    Contender("limits, fixed window", "peers.limits:redis_fixed_window"),
    Contender("throttled-py, token bucket", "peers.throttled:on_redis"),
    Contender("pyrate-limiter, token bucket", "peers.pyrate:on_redis", TB),
    Contender("pyrate-limiter, GCRA", "peers.pyrate:on_redis", GCRA),
    Contender("dramatiq, bucket", "peers.dramatiq:bucket"),
    Contender("dramatiq, window", "peers.dramatiq:window"),
]
ASYNC_RATES = [
    ASYNC_LIMIT,
    Contender("steindamm, token bucket", "peers.steindamm:async_redis_bucket"),
    Contender("steindamm 0.11.1, token bucket", "peers.steindamm:async_redis_bucket", is_published=True),
    Contender("limits, fixed window", "peers.limits:async_redis_fixed_window"),
    Contender("throttled-py, token bucket", "peers.throttled:async_on_redis"),
    Contender("pyrate-limiter, token bucket", "peers.pyrate:async_on_redis", TB),
    Contender("pyrate-limiter, GCRA", "peers.pyrate:async_on_redis", GCRA),
]
SYNC_SLOTS = [
    SYNC_LIMIT,
    Contender("steindamm, semaphore", "peers.steindamm:redis_semaphore"),
    Contender("steindamm 0.11.1, semaphore", "peers.steindamm:redis_semaphore", is_published=True),
    Contender("redis-py Lock (one slot)", "peers.redis_lock:lock"),
    Contender("dramatiq, concurrent", "peers.dramatiq:concurrent"),
]
ASYNC_SLOTS = [
    ASYNC_LIMIT,
    Contender("steindamm, semaphore", "peers.steindamm:async_redis_semaphore"),
    Contender("steindamm 0.11.1, semaphore", "peers.steindamm:async_redis_semaphore", is_published=True),
    Contender("redis-py Lock (one slot)", "peers.redis_lock:async_lock"),
    Contender("async-redis-rate-limiters", "peers.async_redis_rate_limiters:async_semaphore"),
]
TABLES = {
    "redis-rate-sync": ("On Redis, threads: one acquire of a rate", SYNC_RATES),
    "redis-rate-async": ("On Redis, tasks: one acquire of a rate", ASYNC_RATES),
    "redis-slot-sync": ("On Redis, threads: acquire and release a slot", SYNC_SLOTS),
    "redis-slot-async": ("On Redis, tasks: acquire and release a slot", ASYNC_SLOTS),
}


def cost(running: Server, crew: Crew, times: int) -> Load:
    def uses() -> float:
        crew.calls(times)
        return times

    return load(running, uses)


def compared(running: Server, name: str, title: str, contenders: Sequence[Contender], *, quick: bool) -> Table:
    table = Table(name, title, [f"x {BARE}", "us", "round trips", "commands", "Redis CPU us"])
    with crews(contenders, url=running.url) as all_crews:
        times = call_times(all_crews, rounds=15 if quick else 60)
        loads = {crew.name: cost(running, crew, 1_000 if quick else 5_000) for crew in all_crews}
    for who, figures in times.items():
        it = loads[who]
        table.add(
            who, ratios(figures, times[BARE]), spread(figures)[1] * 1e6,
            round(it.round_trips, 1), round(it.commands, 1), it.cpu_us,
        )  # fmt: skip
    table.sort()
    return table


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    with server() as running:
        tables = [compared(running, name, *what, quick=quick) for name, what in TABLES.items()]
        return tables, version(running)


if __name__ == "__main__":
    run("redis_calls", measure)
