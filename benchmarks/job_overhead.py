"""What a limiter that never says no costs a worker: its job rate with one, as a share of that without.

Beside it stand jobs that make the one call to Redis by themselves, without which no limiter for many workers can be.
"""

from __future__ import annotations

from benchmarks.jobs.run import Bench, bench, queue_here, wait_until
from benchmarks.support.rounds import ratios, spread
from benchmarks.support.tables import Table, run

KINDS = {"no limiter": "plain", "a bare EVALSHA in each job": "bare_call", "steindamm, never refusing": "open_limit"}
EDGES = 4
"""Jobs at either end that say when they ran; several, since the pool's processes do not end together."""
PATIENCE = 300.0


def rate(it: Bench, kind: str, jobs: int) -> float:
    """Jobs a second of one worker that finds them all in its queue."""
    it.clear()
    for number in range(jobs):
        it.app.send(kind, number < EDGES or number >= jobs - EDGES)
    with it.workers(1, kind):
        if not wait_until(lambda: it.journal.client.llen(it.journal.EDGE) == 2 * EDGES, PATIENCE):
            raise RuntimeError(f"the jobs of {it.queue} did not end; STEINDAMM_BENCH_VERBOSE=1 shows why")
    edges = it.journal.times(it.journal.EDGE)
    return (jobs - EDGES) / (edges[-1] - edges[EDGES - 1])


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    queue, jobs, rounds = queue_here(), 600 if quick else 3_000, 3 if quick else 9
    table = Table(f"overhead-{queue}", f"{queue}: one worker's job rate", ["share of no limiter", "jobs a second"])
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS.values()}
    with bench(queue) as it:
        for number in range(rounds):
            for kind in sorted(rates, reverse=bool(number % 2)):
                rates[kind].append(rate(it, kind, jobs))
        for name, kind in KINDS.items():
            table.add(name, ratios(rates[kind], rates["plain"]), spread(rates[kind])[1])
        return [table], it.server


if __name__ == "__main__":
    run(f"job_overhead_{queue_here()}", measure)
