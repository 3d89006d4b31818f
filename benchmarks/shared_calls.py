"""Callers in one process that ask one limiter at once share calls: what they get by it, and what a lone one pays."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.redis_calls import ASYNC_LIMIT, BARE, SYNC_LIMIT
from benchmarks.support.crew import Contender, Crew, crews
from benchmarks.support.rounds import call_times, interleaved, ratios, spread
from benchmarks.support.servers import Load, load, server, version
from benchmarks.support.tables import Table, run
from tests.support.servers import Server

CALLERS = 50
SHARED, ALONE = "steindamm", "steindamm, a call for each"
SAFE = "steindamm, a call for each that outlives its caller"
SYNC = [
    SYNC_LIMIT,
    Contender(SHARED, "peers.steindamm:redis_bucket"),
    Contender(ALONE, "peers.steindamm:unshared"),
]
ASYNC = [
    ASYNC_LIMIT,
    Contender(SHARED, "peers.steindamm:async_redis_bucket"),
    Contender(ALONE, "peers.steindamm:async_unshared"),
    Contender(SAFE, "peers.steindamm:async_unshared_and_safe"),
]


def together(running: Server, crew: Crew, seconds: float) -> Load:
    return load(running, lambda: crew.throughput(CALLERS, seconds) * seconds)


def alone(running: Server, crew: Crew, times: int) -> Load:
    return load(running, lambda: crew.calls(times) and times)


def compared(running: Server, kind: str, contenders: Sequence[Contender], *, quick: bool) -> list[Table]:
    seconds, rounds = (0.5, 5) if quick else (1.0, 15)
    many = Table(
        f"shared-{kind}", f"{CALLERS} {kind} of one process on one limiter",
        [f"x {BARE}", "acquires a second", "round trips", "Redis CPU us", "Redis CPU us, one caller"],
    )  # fmt: skip
    lone = Table(f"lone-{kind}", f"One caller, no other {kind}", [f"x {ALONE}", "us"])
    with crews(contenders, url=running.url) as all_crews:
        times = call_times(all_crews, rounds=30 if quick else 100)
        done = interleaved(all_crews, rounds, lambda crew: crew.throughput(CALLERS, seconds))
        for crew in all_crews:
            shared, single = together(running, crew, seconds), alone(running, crew, 1_000 if quick else 5_000)
            figures = done[crew.name]
            many.add(
                crew.name, ratios(figures, done[BARE]), spread(figures)[1], shared.round_trips, shared.cpu_us,
                single.cpu_us,
            )  # fmt: skip
    for who in [contender.name for contender in contenders if contender.name != BARE]:
        lone.add(who, ratios(times[who], times[ALONE]), spread(times[who])[1] * 1e6)
    return [many, lone]


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    with server() as running:
        tables = [
            *compared(running, "tasks", ASYNC, quick=quick),
            *compared(running, "threads", SYNC, quick=quick),
        ]
        return tables, version(running)


if __name__ == "__main__":
    run("shared_calls", measure)
