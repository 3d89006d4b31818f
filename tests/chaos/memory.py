"""Whether a worker that sends jobs back again and again stays as big as it is: ``python -m chaos.memory celery``."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from chaos.farms import Farm
from chaos.queues import QUEUES

JOBS = 200
MARKS = range(10_000, 60_000, 10_000)
"""Deferrals after which the worker is weighed."""
PATIENCE = 600.0
"""Seconds in which all of it must be over."""


def resident(pid: int) -> int:
    """The memory that a process has, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def weigh(farm: Farm) -> int:
    """The largest process of the worker, in KiB."""
    [worker] = farm.living
    return max(map(resident, worker.pids))


def deferrals(farm: Farm) -> int:
    return sum(event.what == "deferred" for event in farm.journal.events())


def weights(queue: str) -> dict[int, int]:
    """What a worker of a queue weighs, in KiB, after so many deferrals."""
    with tempfile.TemporaryDirectory() as folder, Farm(Path(folder), QUEUES[queue]) as farm:
        farm.start(farm.queues[0])
        farm.wait_until_ready()
        farm.send([("again", 0, f"again-0-{number}") for number in range(JOBS)])
        found: dict[int, int] = {}
        end = time.monotonic() + PATIENCE
        while len(found) < len(MARKS):
            assert time.monotonic() < end, f"only {deferrals(farm)} deferrals"
            time.sleep(1)
            count = deferrals(farm)
            if count >= MARKS[len(found)]:
                found[count] = weigh(farm)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="chaos.memory", description="What a worker weighs that sends jobs back.")
    parser.add_argument("queue", choices=[name for name, queues in QUEUES.items() if len(queues) == 1])
    queue = parser.parse_args().queue
    for count, kib in weights(queue).items():
        print(f"{queue}: after {count:6} deferrals {kib / 1024:.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
