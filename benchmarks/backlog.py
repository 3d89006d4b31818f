"""Jobs wait at a limit of a hundred a second: how much is used, by how many deliveries, and who is held up."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left

from benchmarks.jobs.run import Bench, bench, queue_here, wait_until
from benchmarks.support.tables import Cell, Table, run

CAPACITY, RATE, WORKERS = 10, 100, 2
KINDS = {
    "celery": {
        "steindamm": "steindamm",
        "celery-heimdall": "heimdall",
        "Celery's rate_limit, shared out": "rate_limit",
        "retry in a second when refused": "retried",
    },
    "dramatiq": {
        "steindamm": "steindamm",
        "BucketRateLimiter with Retries": "bucket_rate_limiter",
        "retry in a second when refused": "retried",
    },
    "arq": {
        "steindamm": "steindamm",
        "steindamm, max_sleep=5, max_jobs=1000": "patient",
        "retry in a second when refused": "retried",
    },
}
UNLIMITED_EVERY = 0.25
"""Seconds between two jobs without a limit that are sent while the others wait."""
STARTING = 120.0
"""Seconds; a machine that others use starts workers slowly."""
MOST_TIMES = 3.0
"""How many times the time that the jobs need at least they are waited for; what has not run by then is counted."""


def sent_meanwhile(it: Bench, jobs: int) -> int:
    """Send jobs without a limit while the others wait; how many."""
    count, journal = 0, it.journal
    end = time.monotonic() + MOST_TIMES * jobs / RATE
    while journal.client.llen(journal.RAN) < jobs and time.monotonic() < end:
        it.app.send_unlimited(journal.server_time())
        count += 1
        time.sleep(UNLIMITED_EVERY)
    return count


def figures(it: Bench, jobs: int, unlimited: int) -> list[Cell]:
    journal = it.journal
    ran = journal.times(journal.RAN)
    end = ran[-1] if len(ran) >= jobs else journal.server_time()
    wait_until(lambda: journal.client.llen(journal.UNLIMITED) >= unlimited, 10.0)
    delays = journal.delays(journal.UNLIMITED)
    most = max(bisect_left(ran, start + 1.0) - index for index, start in enumerate(ran))
    return [
        len(ran) / (CAPACITY + RATE * (end - ran[0])), float(most), f"{len(ran)} of {jobs}",
        journal.deliveries() / jobs, *_in_milliseconds(delays), f"{len(delays)} of {unlimited}",
    ]  # fmt: skip


def _in_milliseconds(delays: list[float]) -> list[Cell]:
    if len(delays) < 2:
        return [None, None]
    return [statistics.median(delays) * 1e3, statistics.quantiles(delays, n=20)[-1] * 1e3]


def backlog(it: Bench, kind: str, jobs: int) -> list[Cell]:
    it.clear()
    for number in range(jobs):
        it.app.send(kind, number)
    with it.workers(WORKERS, kind):
        if not wait_until(lambda: it.journal.client.llen(it.journal.RAN) > 0, STARTING):
            raise RuntimeError(f"no job of {it.queue} has run; STEINDAMM_BENCH_VERBOSE=1 shows why")
        return figures(it, jobs, sent_meanwhile(it, jobs))


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    queue, jobs = queue_here(), 400 if quick else 2_000
    columns = [
        "granted / allowed", f"most in 1 s (bound {CAPACITY + RATE})", "jobs run", "deliveries a job",
        "unlimited jobs start after ms", "p95 ms", "unlimited jobs run",
    ]  # fmt: skip
    title = f"{queue}: {jobs:,} jobs wait at {RATE}/s, capacity {CAPACITY}, {WORKERS} workers"
    table = Table(f"backlog-{queue}", title, columns)
    with bench(queue) as it:
        for name, kind in KINDS[queue].items():
            table.add(name, *backlog(it, kind, jobs))
        return [table], it.server


if __name__ == "__main__":
    run(f"backlog_{queue_here()}", measure)
