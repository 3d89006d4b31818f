"""Limiters in memory, nobody else asking: how many times a bare lock one acquire takes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.support.crew import Contender, crews
from benchmarks.support.rounds import call_times, ratios, spread
from benchmarks.support.tables import Table, run

TB = {"algorithm": "token bucket"}
SYNC = [
    Contender("threading.Lock", "peers.bare:lock"),
    Contender("threading.Semaphore", "peers.bare:semaphore"),
    Contender("steindamm, token bucket", "peers.steindamm:bucket"),
    Contender("steindamm, semaphore", "peers.steindamm:semaphore"),
    Contender("steindamm 0.11.1, token bucket", "peers.steindamm:bucket", is_published=True),
    Contender("steindamm 0.11.1, semaphore", "peers.steindamm:semaphore", is_published=True),
    Contender("limits, fixed window", "peers.limits:fixed_window"),
    Contender("throttled-py, token bucket", "peers.throttled:local"),
    Contender("throttled-py, GCRA", "peers.throttled:local", {"using": "gcra"}),
    Contender("pyrate-limiter, token bucket", "peers.pyrate:local", TB),
]
ASYNC = [
    Contender("asyncio.Lock", "peers.bare:async_lock"),
    Contender("asyncio.Semaphore", "peers.bare:async_semaphore"),
    Contender("steindamm, token bucket", "peers.steindamm:async_bucket"),
    Contender("steindamm, semaphore", "peers.steindamm:async_semaphore"),
    Contender("steindamm 0.11.1, token bucket", "peers.steindamm:async_bucket", is_published=True),
    Contender("steindamm 0.11.1, semaphore", "peers.steindamm:async_semaphore", is_published=True),
    Contender("aiolimiter", "peers.aiolimiter:async_limiter"),
    Contender("limits, fixed window", "peers.limits:async_fixed_window"),
    Contender("throttled-py, token bucket", "peers.throttled:async_local"),
    Contender("throttled-py, GCRA", "peers.throttled:async_local", {"using": "gcra"}),
    Contender("pyrate-limiter, token bucket", "peers.pyrate:async_local", TB),
]


def compared(name: str, title: str, contenders: Sequence[Contender], *, quick: bool) -> Table:
    limit = contenders[0].name
    table = Table(name, title, [f"x {limit}", "us"])
    with crews(contenders) as all_crews:
        times = call_times(all_crews, rounds=15 if quick else 60, clock="thread_time")
    for who, figures in times.items():
        table.add(who, ratios(figures, times[limit]), spread(figures)[1] * 1e6)
    table.sort()
    return table


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    return [
        compared("local-sync", "In memory, threads: one acquire", SYNC, quick=quick),
        compared("local-async", "In memory, tasks: one acquire", ASYNC, quick=quick),
    ], "none"


if __name__ == "__main__":
    run("local", measure)
