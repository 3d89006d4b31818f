"""Faults under plain callers: four processes of threads or of tasks at one bucket and one semaphore."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Self

from chaos import callers, checker, faults, scenes
from chaos.clock import LIBRARY
from chaos.history import History
from chaos.journal import Journal
from chaos.scenes import Scene, wait_until
from chaos.table import Row
from steindamm.sleepers import AHEAD
from steindamm.turns import FRESH

TESTS = Path(__file__).parents[1]
PATIENCE = 15.0
"""Seconds for which processes that should have ended are waited for."""
BEFORE, AFTER = 1.0, 3.0
"""Seconds of undisturbed work before a fault, and after it."""
LATE = 0.05
"""Seconds by which a caller may be late on a machine that has time for it."""

FORGOTTEN = callers.CAPACITY + int(callers.RATE * (FRESH + AHEAD)), callers.SLOTS
"""Where the server loses its memory: the bucket is full, and for so long nobody looks whether his turn is lost."""
UNHEARD = callers.CAPACITY, callers.SLOTS
"""Where the server's replica has not heard of the last moments."""
PASSED = callers.CAPACITY + scenes.PROCESSES * callers.STARTING, callers.SLOTS
"""Where all turns of those who sleep are over for the server, and all leases have run out."""
HEARD_LATE = int(callers.RATE * faults.DELAY), 0
"""Where leave to start is heard so late that it falls together with what is given out by then."""


class Fault(NamedTuple):
    """One row.

    Parameters:
        name: As people call it.
        inject: Does it.
        lasts: Seconds that it takes, about.
        scene: Where.
        bound: Starts, and slots, by which the limits may be exceeded by it.
        in_order: Whether all are served in the order in which they asked in spite of it: nobody is cut off, or delayed
            on the way.
    """

    name: str
    inject: faults.Inject
    lasts: float = 1.0
    scene: Callable[[Journal, Path], AbstractContextManager[Scene]] = scenes.alone
    bound: tuple[int, int] = (0, 0)
    in_order: bool = False


FAULTS = [
    Fault("none", faults.nothing, in_order=True),
    Fault("process killed", faults.kill_process, in_order=True),
    Fault("processes stopped for 3 s", faults.stop_process, 3),
    Fault("server killed, comes back empty", faults.restart_server, bound=FORGOTTEN),
    Fault("server killed, comes back with its AOF", faults.restart_server, 1, scenes.lasting),
    Fault("server stopped for 5 s", faults.stop_server, 5),
    Fault("SCRIPT FLUSH, 20 times", faults.flush_scripts, in_order=True),
    Fault("CLIENT KILL, 10 times", faults.kill_clients),
    Fault("FLUSHALL", faults.flush_all, 0, bound=FORGOTTEN),
    Fault("CLIENT PAUSE for 2 s", faults.pause_clients, 2),
    Fault("out of memory for 2 s", faults.run_out_of_memory, 2, in_order=True),
    Fault("read-only for 2 s", faults.make_read_only, 2.5, scenes.with_a_replica, bound=UNHEARD),
    Fault("cluster: failover", faults.fail_over, 1, scenes.in_a_cluster, in_order=True),
    Fault("cluster: master killed", faults.kill_leader, 3, scenes.in_a_cluster, bound=UNHEARD),
    Fault("cluster: slot moved in use", faults.move_slot, 1.5, scenes.in_a_cluster),
    Fault("server's clock an hour forward", faults.set_clock_forward, 1, scenes.by_a_clock_of_its_own, bound=PASSED),
    Fault("server's clock an hour back", faults.set_clock_back, 1, scenes.by_a_clock_of_its_own, in_order=True),
    Fault("callers' clocks an hour forward", faults.set_clock_forward, 1, scenes.by_two_clocks, in_order=True),
    Fault("callers' clocks an hour back", faults.set_clock_back, 1, scenes.by_two_clocks, in_order=True),
    Fault("network slow by 0.3 s for 2 s", faults.delay_network, 2, scenes.behind_a_network, bound=HEARD_LATE),
    Fault("network silent for 3 s", faults.swallow_network, 3, scenes.behind_a_network),
    Fault("network cut in replies for 2 s", faults.cut_network, 2, scenes.behind_a_network),
]


class Pulse:
    """Measures by how much the machine is late with what is due, while others use it, too."""

    late = 0.0

    def _beat(self) -> None:
        while not self._ended.wait(0.0):
            due = time.monotonic() + 0.005
            time.sleep(0.005)
            self.late = max(self.late, time.monotonic() - due)

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def run(fault: Fault, ways: Iterable[str] = ("sync", "async", "sync", "async")) -> Row:
    """Let callers work, do it to them, and look at what they did."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        with fault.scene(journal, Path(folder)) as scene, Pulse() as pulse:
            seconds = BEFORE + fault.lasts + AFTER
            processes = [
                start(url, folder, seconds, way, more)
                for url, way, more in zip(scene.urls, ways, scene.environments, strict=True)
            ]
            try:
                scene.pids = [process.pid for process in processes]
                wait_until(lambda: len({event.pid for event in journal.events()}) == len(processes), "not all call")
                time.sleep(BEFORE)
                journal.write("begins")
                fault.inject(scene)
                journal.write("over")
                end(processes, seconds)
            finally:
                for process in processes:
                    process.kill()
                    process.wait()
        return outcome(fault, History(journal.events()), pulse.late)


def start(url: str, folder: str, seconds: float, way: str, more: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "chaos.callers", url, folder, str(seconds), way]
    return subprocess.Popen(command, cwd=TESTS, env={**os.environ, **more}, stderr=subprocess.DEVNULL)


def end(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait until all have ended, but not for ever."""
    deadline = time.monotonic() + seconds + PATIENCE
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def outcome(fault: Fault, history: History, late: float) -> Row:
    """What came of it."""
    begins, over = history.when("begins"), history.when("over")
    assert begins is not None
    assert over is not None
    starts = [run.start for run in history.executions("rate")]
    holds = history.executions("slot")
    usual = sum(begins - 1 <= hold.start < begins for hold in holds)
    return Row(
        fault.name,
        len(history.of("asks")),
        len(checker.unanswered(history, "")),
        len(history.of("surprise")),
        len(history.of("told")),
        checker.starts_over_limit(starts, callers.CAPACITY, callers.RATE, LATE + late),
        checker.slots_over_limit(holds, callers.SLOTS),
        fault.bound,
        (
            checker.recovery(starts, over, callers.RATE),
            checker.recovery([hold.start for hold in holds], over, usual),
        ),
        late,
        sum(checker.overtaken(history, kind, begins - BEFORE / 2, LATE + late) for kind in ("rate", "slot")),
        0 if fault.in_order else None,
    )


def play(_: str, words: Sequence[str]) -> Iterator[Row]:
    """One fault after the other."""
    for fault in FAULTS:
        if words and not any(word in fault.name for word in words):
            continue
        if LIBRARY is None and "clock" in fault.name:
            print(f"  {fault.name}: left out, libfaketime is not installed", file=sys.stderr)
            continue
        yield run(fault)
