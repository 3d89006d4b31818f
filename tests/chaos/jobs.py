"""Faults under job workers: three workers of a queue work through hundreds of jobs with two kinds of limits."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from chaos import checker, faults
from chaos.apps.limits import CAPACITY, RATE, SLOTS
from chaos.farms import FARMS, WORKERS, Farm
from chaos.history import History
from chaos.plain import LATE, Pulse
from chaos.scenes import wait_until

STARTING, HOLDING = 600, 300
"""Jobs a round: at the bucket, and at the semaphore."""
BEGIN = 0.2
"""The share of the jobs that have started when the fault begins."""
PATIENCE = 60.0
"""Seconds in which all jobs of a round must be done."""


def nothing(_: Farm) -> None:
    """No fault."""


def kill_worker(farm: Farm) -> None:
    """SIGKILL for a worker and all that it has started; another one is started."""
    farm.living[0].kill()
    farm.start()


def kill_child(farm: Farm) -> None:
    """SIGKILL for a pool process, of one worker after the other."""
    for worker in farm.living:
        worker.kill_child()
        time.sleep(0.3)


def deploy(farm: Farm) -> None:
    """SIGTERM for one worker after the other, each replaced when it has ended."""
    for worker in farm.living:
        farm.start()
        farm.wait_until_ready()
        worker.end()


def with_server(fault: Callable[[Any], None]) -> Callable[[Farm], None]:
    """What is done to the limits' server."""
    return fault


class Fault(NamedTuple):
    """One row: its name, what does it, whether the limits are forgotten by it, and for which queues alone."""

    name: str
    inject: Callable[[Any], None]
    forgets: bool = False
    queues: tuple[str, ...] = tuple(FARMS)


FAULTS = [
    Fault("none", nothing),
    Fault("worker killed", kill_worker),
    Fault("pool processes killed", kill_child, queues=("celery",)),
    Fault("rolling deploy (SIGTERM)", deploy),
    Fault("limits' server stopped for 5 s", faults.stop_server),
    Fault("limits' server killed, comes back empty", faults.restart_server, forgets=True),
    Fault("limits' server: CLIENT KILL, 10 times", faults.kill_clients),
    Fault("limits' server: SCRIPT FLUSH, 20 times", faults.flush_scripts),
]


class Outcome(NamedTuple):
    """What came of a round.

    Parameters:
        fault: Its name.
        jobs: How many there were.
        lost: Those that never ran to their end.
        redelivered: Runs beyond the first that a kill explains.
        doubled: Those that nothing explains.
        starts_over, slots_over: By how much the limits were exceeded at most.
        deliveries: Deferrals and starts a job.
        recovery: Seconds until starts, and holds, were at their usual rate again; None for never.
        done: Seconds from the fault's end until the last job was done.
        late: Seconds by which the machine itself was late.
    """

    fault: str
    jobs: int
    lost: set[str]
    redelivered: int
    doubled: list[Any]
    starts_over: float
    slots_over: int
    deliveries: float
    recovery: tuple[float | None, float | None]
    done: float
    late: float


def run(farm: Farm, fault: Fault, round_: int, starting: int = STARTING, holding: int = HOLDING) -> Outcome:
    """Send jobs, do it to their workers, and look at what became of them."""
    jobs = [(kind, round_, f"{kind}-{round_}-{n}") for kind, count in (("rate", starting), ("slot", holding)) for n in range(count)]
    names = {who for _, _, who in jobs}

    def of_round(*kinds: str) -> list[Any]:
        return [event for event in farm.journal.events() if event.what in kinds and event.who in names]

    with Pulse() as pulse:
        farm.send(sorted(jobs, key=lambda job: int(job[2].rpartition("-")[2])))
        wait_until(lambda: len(of_round("start")) >= BEGIN * len(jobs), "hardly any job starts", PATIENCE)
        begins = time.monotonic()
        fault.inject(farm)
        over = time.monotonic()
        deadline = over + PATIENCE
        while len({event.who for event in of_round("end")}) < len(jobs) and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(1)
    farm.wait_until_ready()
    return outcome(fault, History(farm.journal.events()), names, round_, begins, over, pulse.late)


def outcome(
    fault: Fault, history: History, names: set[str], round_: int, begins: float, over: float, late: float
) -> Outcome:
    rate, slot = (history.executions(f"{kind}-{round_}-") for kind in ("rate", "slot"))
    runs = [*rate, *slot]
    explained, ours = checker.repeated(runs, history)
    deferred = sum(event.who in names for event in history.of("deferred"))
    usual = sum(begins - 1 <= hold.start < begins for hold in slot)
    return Outcome(
        fault.name,
        len(names),
        checker.lost(names, runs),
        len(explained),
        ours,
        checker.starts_over_limit([run.start for run in rate], CAPACITY, RATE, LATE + late),
        checker.slots_over_limit(slot, SLOTS),
        (deferred + len(runs)) / len(names),
        (
            checker.recovery([run.start for run in rate], over, RATE),
            checker.recovery([hold.start for hold in slot], over, usual),
        ),
        max(run.end or 0.0 for run in runs) - over,
        late,
    )


def run_all(queue: str, words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, FARMS[queue](Path(folder)) as farm:
        for _ in range(WORKERS):
            farm.start()
        farm.wait_until_ready()
        for round_, fault in enumerate(FAULTS):
            if queue in fault.queues and (not words or any(word in fault.name for word in words)):
                print(run(farm, fault, round_), flush=True)
        farm.journal.folder.joinpath("workers.log").rename(f"/tmp/hc_{queue}.log")


if __name__ == "__main__":
    run_all(sys.argv[1], sys.argv[2:])
