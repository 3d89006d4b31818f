"""From one to 64 client processes on one limiter, and a cluster of three nodes against one."""

from __future__ import annotations

from benchmarks.support.crew import Contender, Crew, crews
from benchmarks.support.rounds import call_times, interleaved, ratios, spread
from benchmarks.support.servers import cluster, load, server, version
from benchmarks.support.tables import Table, run
from tests.support.servers import Server

OURS = Contender("steindamm", "peers.steindamm:redis_bucket")
TASKS = 50


def processes(running: Server, counts: list[int], seconds: float) -> Table:
    table = Table(
        "growth-processes", "So many processes on one limiter, each a lone caller",
        ["acquires a second", "Redis CPU us an acquire"],
    )  # fmt: skip
    for count in counts:
        with crews([OURS], size=count, url=running.url) as (crew,):
            crew.throughput(1, 0.2)
            rates: list[float] = []

            def uses(crew: Crew = crew, rates: list[float] = rates) -> float:
                rates.append(crew.throughput(1, seconds))
                return rates[-1] * seconds

            it = load(running, uses)
            table.add(f"{count}", rates[-1], it.cpu_us)
    return table


def nodes(running: Server, *, quick: bool) -> Table:
    table = Table(
        "growth-cluster", "A cluster of three nodes against one node",
        ["one caller: x one node", "us", f"{TASKS} tasks on {TASKS} names: x one node", "acquires a second"],
    )  # fmt: skip
    with cluster() as three:
        one_node = {"url": running.url}
        cluster_nodes = {"url": three.url.replace("redis+cluster", "redis"), "is_cluster": True}
        kinds = {"one node": one_node, "cluster of three": cluster_nodes}
        callers = [Contender(name, "peers.many_names:one_name", place) for name, place in kinds.items()]
        tasks = [Contender(name, "peers.many_names:async_many_names", place) for name, place in kinds.items()]
        with crews(callers) as lone, crews(tasks) as many:
            times = call_times(lone, rounds=15 if quick else 60)
            for crew in many:
                crew.calls(TASKS)
            done = interleaved(many, 3 if quick else 9, lambda crew: crew.throughput(TASKS, 0.5 if quick else 1.0))
    for who in kinds:
        table.add(
            who, ratios(times[who], times["one node"]), spread(times[who])[1] * 1e6,
            ratios(done[who], done["one node"]), spread(done[who])[1],
        )  # fmt: skip
    return table


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    with server() as running:
        counts = [1, 4, 16] if quick else [1, 2, 4, 8, 16, 32, 64]
        tables = [processes(running, counts, 0.5 if quick else 2.0), nodes(running, quick=quick)]
        return tables, version(running)


if __name__ == "__main__":
    run("growth_clients", measure)
