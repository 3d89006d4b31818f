"""Jobs call an API that allows half of what their limit says: how often it says "not now", and what that costs."""

from __future__ import annotations

import os
from bisect import bisect_left

from benchmarks.jobs.run import Bench, bench, queue_here, wait_until
from benchmarks.support.api import api
from benchmarks.support.tables import Cell, Table, run
from steindamm.demo.calls import read_log

JOBS, WORKERS = 300, 2
KINDS = {
    "steindamm, throttle_on and adapt": "told_and_adapts",
    "steindamm, throttle_on": "told",
    "the job's own retry after 2 s": "untold",
}
PATIENCE = 180.0
"""Seconds; what has not run by then is counted."""


def figures(it: Bench, url: str) -> list[Cell]:
    _, calls = read_log(url)
    answered = sorted(call.at for call in calls if call.allowed)
    refused = len(calls) - len(answered)
    notes = [line.split() for line in it.journal.client.lrange(it.journal.RAN, 0, -1)]
    most = max(bisect_left(answered, start + 1.0) - index for index, start in enumerate(answered))
    return [
        f"{len({number for _, number, _ in notes})} of {JOBS}", len(calls), refused, 100 * refused / len(calls),
        sum(int(retries) for *_, retries in notes), answered[-1] - calls[0].at, most,
    ]  # fmt: skip


def calls(it: Bench, kind: str) -> list[Cell]:
    it.clear()
    rule = it.app.calling
    with api(rule.THEIRS, rule.BURST, rule.RETRY_AFTER) as url:
        os.environ[rule.API] = url
        for number in range(JOBS):
            it.app.send(kind, number)
        with it.workers(WORKERS):
            wait_until(lambda: it.journal.client.llen(it.journal.RAN) >= JOBS, PATIENCE)
        return figures(it, url)


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    queue = queue_here()
    columns = ["jobs done", "calls", "429s", "% of calls", "retries spent", "seconds", "most answered in 1 s"]
    with bench(queue) as it:
        rule = it.app.calling
        title = (
            f"{queue}: {JOBS} jobs, a limit of {rule.OURS}/s, and an API that allows {rule.THEIRS}/s, and answers 429"
            f" with Retry-After: {rule.RETRY_AFTER} to what is beyond"
        )
        table = Table(f"not-now-{queue}", title, columns)
        for name, kind in list(KINDS.items())[: 1 if quick else None]:
            table.add(name, *calls(it, kind))
        return [table], it.server


if __name__ == "__main__":
    run(f"not_now_{queue_here()}", measure)
