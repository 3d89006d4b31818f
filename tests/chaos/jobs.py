"""Faults under three workers, of a queue or one of each, and their hundreds of jobs with two kinds of limits."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from chaos import checker, faults
from chaos.apps.limits import CAPACITY, RATE, SLOTS
from chaos.farms import Farm
from chaos.history import History
from chaos.plain import Pulse
from chaos.queues import QUEUES
from chaos.scenes import wait_until
from chaos.table import Row

WORKERS = 3
STARTING, HOLDING = 600, 300
"""Jobs a round: at the bucket, and at the semaphore."""
BEGIN = 0.2
"""The share of the jobs that have started when the fault begins."""
LATE = 0.1
"""Seconds that a job which was let start may take on its way to the process, or thread, that runs it."""
PATIENCE = 60.0
"""Seconds in which all jobs of a round must be done."""
SECOND_RUNS = 1.0
"""Seconds for which second runs are waited for, when all jobs are done."""


def nothing(_: Farm) -> None:
    """No fault."""


def kill_worker(farm: Farm) -> None:
    """SIGKILL for a worker and all that it has started; another one is started."""
    killed = farm.living[0]
    killed.kill()
    farm.start(killed.queue)


def stop_worker(farm: Farm, seconds: float = 5.0) -> None:
    """SIGSTOP for a worker and all that it has started, for longer than a lease lasts."""
    stopped = farm.living[0]
    stopped.stop()
    time.sleep(seconds)
    stopped.go_on()


def kill_child(farm: Farm) -> None:
    """SIGKILL for a pool process, of one worker after the other."""
    for worker in farm.living:
        worker.kill_child()
        time.sleep(0.3)


def deploy(farm: Farm) -> None:
    """SIGTERM for one worker after the other; others are started, and take over when they are ready."""
    for worker in farm.living:
        farm.start(worker.queue)
        worker.end()


def kill_broker_clients(farm: Farm) -> None:
    """All connections to the queue's own server are closed, again and again; who ends of it is started again."""
    for _ in range(10):
        farm.broker.admin.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.1)
        farm.replace_the_dead()


class Fault(NamedTuple):
    """One row: its name, what does it, whether the limits are forgotten by it, and for which queues alone."""

    name: str
    inject: Callable[[Any], None]
    forgets: bool = False
    queues: tuple[str, ...] = tuple(QUEUES)


FAULTS = [
    Fault("none", nothing),
    Fault("worker killed", kill_worker),
    Fault("worker stopped for 5 s", stop_worker),
    Fault("pool processes killed", kill_child, queues=("celery",)),
    Fault("rolling deploy (SIGTERM)", deploy),
    Fault("queue's server: CLIENT KILL, 10 times", kill_broker_clients, queues=("dramatiq", "arq")),
    Fault("limits' server stopped for 5 s", faults.stop_server),
    Fault("limits' server killed, comes back empty", faults.restart_server, forgets=True),
    Fault("limits' server: CLIENT KILL, 10 times", faults.kill_clients),
    Fault("limits' server: SCRIPT FLUSH, 20 times", faults.flush_scripts),
]


def run(farm: Farm, fault: Fault, round_: int, starting: int = STARTING, holding: int = HOLDING) -> Row:
    """Send jobs, do it to their workers, and look at what became of them."""
    numbers = [("rate", number) for number in range(starting)] + [("slot", number) for number in range(holding)]
    jobs = [(kind, round_, f"{kind}-{round_}-{number}") for kind, number in numbers]
    random.shuffle(jobs)
    names = {who for _, _, who in jobs}

    def have(*what: str) -> int:
        return len({event.who for event in farm.journal.events() if event.what in what} & names)

    with Pulse() as pulse:
        farm.send(jobs)
        wait_until(lambda: have("start") >= BEGIN * len(jobs), "hardly any job starts", PATIENCE)
        begins = time.monotonic()
        fault.inject(farm)
        over = time.monotonic()
        while have("end", "lost") < len(jobs) and time.monotonic() < over + PATIENCE:
            time.sleep(0.2)
            farm.replace_the_dead()
        time.sleep(SECOND_RUNS)
    farm.wait_until_ready()
    return outcome(fault, History(farm.journal.events()), names, round_, begins, over, pulse.late)


def outcome(
    fault: Fault, history: History, names: set[str], round_: int, begins: float, over: float, late: float
) -> Row:
    """What came of it."""
    rate, slot = (history.executions(f"{kind}-{round_}-") for kind in ("rate", "slot"))
    explained, ours = checker.repeated([*rate, *slot], history)
    usual = sum(begins - 1 <= hold.start < begins for hold in slot)
    swallowed = checker.swallowed(names, history)
    return Row(
        fault.name,
        len(names),
        len(checker.lost(names - swallowed, [*rate, *slot])),
        len(ours),
        len(explained),
        checker.starts_over_limit([run.start for run in rate], CAPACITY, RATE, LATE + late),
        checker.slots_over_limit(slot, SLOTS),
        (CAPACITY, SLOTS) if fault.forgets else (0, 0),
        (
            checker.recovery([run.start for run in rate], over, RATE),
            checker.recovery([hold.start for hold in slot], over, usual),
        ),
        late,
        len(swallowed),
    )


def play(queue: str, words: Sequence[str], **counts: int) -> Iterator[Row]:
    """One fault after the other, at the same workers."""
    with tempfile.TemporaryDirectory() as folder, Farm(Path(folder), QUEUES[queue]) as farm:
        for each in islice(cycle(QUEUES[queue]), WORKERS):
            farm.start(each)
        farm.wait_until_ready()
        for round_, fault in enumerate(FAULTS):
            if queue in fault.queues and (not words or any(word in fault.name for word in words)):
                yield run(farm, fault, round_, **counts)
