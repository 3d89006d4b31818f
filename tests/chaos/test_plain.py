"""Plain callers while something fails: the short form of ``make chaos``; and limiters that are found out."""

from __future__ import annotations

import time

from chaos import faults, plain
from chaos.callers import LEASE
from chaos.plain import FORGOTTEN, Fault
from chaos.scenes import Scene

NAIVE = ["naive"] * 4


def one_after_the_other(scene: Scene) -> None:
    """Connections are cut, two processes stand still, and the server forgets its scripts and then everything."""
    for fault in (faults.kill_clients, stop_briefly, faults.flush_scripts, faults.flush_all):
        fault(scene)


def stop_briefly(scene: Scene) -> None:
    faults.stop_process(scene, seconds=LEASE + 0.5)


def kill_and_forget(scene: Scene) -> None:
    """Two processes are killed while they hold slots; later the server forgets everything."""
    for _ in range(2):
        faults.kill_process(scene)
        scene.pids.pop(0)
    time.sleep(1)
    faults.flush_all(scene)


def test_nothing_is_lost_and_nothing_over_the_limit() -> None:
    row = plain.run(Fault("one after the other", one_after_the_other, 4, bound=FORGOTTEN))
    assert row.calls > 100
    assert row.is_right, row


def test_limiters_that_are_no_good_are_found_out() -> None:
    row = plain.run(Fault("killed, and forgotten", kill_and_forget, 1), NAIVE)
    assert row.starts_over > 10
    assert row.slots_over >= 1
