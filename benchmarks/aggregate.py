"""Four processes of fifty tasks each, all on one limiter: uses a second, as a share of a bare EVALSHA's."""

from __future__ import annotations

from benchmarks.redis_calls import ASYNC_LIMIT, ASYNC_RATES, BARE
from benchmarks.support.crew import crews
from benchmarks.support.rounds import interleaved, ratios, spread
from benchmarks.support.servers import server, version
from benchmarks.support.tables import Table, run

PROCESSES, TASKS = 4, 50


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    seconds, rounds = (0.5, 3) if quick else (1.0, 9)
    table = Table(
        "aggregate", f"On Redis, {PROCESSES} processes of {TASKS} tasks", [f"share of {BARE}", "acquires a second"]
    )
    with server() as running, crews(ASYNC_RATES, size=PROCESSES, url=running.url) as all_crews:
        for crew in all_crews:
            crew.throughput(TASKS, 0.1)
        done = interleaved(all_crews, rounds, lambda crew: crew.throughput(TASKS, seconds))
        for who, figures in done.items():
            table.add(who, ratios(figures, done[ASYNC_LIMIT.name]), spread(figures)[1])
        table.sort(descending=True)
        return [table], version(running)


if __name__ == "__main__":
    run("aggregate", measure)
