"""Jobs take an estimate and settle what they used: whether what they settle keeps to the limit, and uses it."""

from __future__ import annotations

from benchmarks.jobs.run import Bench, bench, queue_here, wait_until
from benchmarks.support.tables import Cell, Table, run

WORKERS = 2
STARTING = 120.0
AFTER = 8.0
"""Seconds after the first job at which the measured time begins: workers look through the whole backlog first."""


def settled(it: Bench, seconds: float) -> list[Cell]:
    it.clear()
    rule, journal = it.app.using, it.journal
    for number in range(int(1.1 * (AFTER + seconds) * rule.PER_SECOND / rule.ESTIMATE)):
        it.app.send("settles", number)
    with it.workers(WORKERS):
        wait_until(lambda: journal.client.llen(journal.RAN) > 0, STARTING)
        began = journal.times(journal.RAN)[0] + AFTER
        wait_until(lambda: journal.server_time() > began + seconds, 2 * (AFTER + seconds))
    notes = [(float(at), float(used)) for at, used in map(bytes.split, journal.client.lrange(journal.RAN, 0, -1))]
    inside = [used for at, used in notes if began < at <= began + seconds]
    allowed = rule.PER_SECOND * seconds
    return [len(inside), sum(inside), allowed, sum(inside) / allowed]


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    queue, seconds = queue_here(), 5.0 if quick else 30.0
    with bench(queue) as it:
        rule = it.app.using
        title = (
            f"{queue}: jobs estimated at {rule.ESTIMATE:,} tokens use that ± {rule.SPREAD:.0%}, at "
            f"{rule.PER_SECOND:,} tokens a second, for {seconds:g} s"
        )
        table = Table(f"settled-{queue}", title, ["jobs", "tokens settled", "tokens allowed", "settled / allowed"])
        table.add("steindamm, settled in the job", *settled(it, seconds))
        return [table], it.server


if __name__ == "__main__":
    run(f"settled_{queue_here()}", measure)
