"""What must be true of every history, whatever has failed. Each invariant counts what breaks it: 0 is right."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from chaos.history import Execution, History

ACKNOWLEDGED = {"killed": 1.0, "ended": 6.0}
"""Seconds before its death by which a worker that had done with a job has told the queue; else the queue delivers the
job again, and cannot know better. One that ends by itself, since its queue has hung up, takes its time for it."""


def starts_over_limit(starts: Iterable[float], capacity: float, rate: float, late: float = 0.0) -> float:
    """Starts by which the fullest window, of whatever length, holds more than capacity and its refills.

    Think of a queue which each start enters, and which is served at the rate: the most that are ever in it, less the
    capacity, is the largest excess of any window. `late` is by how much a start may be late, in seconds: for so much
    longer the tokens of its window have been arriving.
    """
    times = sorted(starts)
    most = queued = 1.0 if times else 0.0
    for before, at in pairwise(times):
        queued = max(0.0, queued - rate * (at - before)) + 1
        most = max(most, queued)
    return max(0.0, most - capacity - rate * late)


def slots_over_limit(holds: Iterable[Execution], capacity: int) -> int:
    """By how many more than its slots a semaphore was ever held at once."""
    steps = []
    for hold in holds:
        steps.append((hold.start, 1))
        if hold.end is not None:
            steps.append((hold.end, -1))
    held = most = 0
    for _, step in sorted(steps):
        held += step
        most = max(most, held)
    return max(0, most - capacity)


def lost(asked: Iterable[str], runs: Iterable[Execution]) -> set[str]:
    """Jobs that never ran to their end."""
    return set(asked) - {run.who for run in runs if run.is_whole}


def swallowed(asked: Iterable[str], history: History) -> set[str]:
    """Jobs that nobody had when a worker was killed, and nobody got after that: they were lost on the way to it.

    They came from who enqueued them, of whom nothing is written down, or from a worker that had sent them back.
    """
    kills = [event.at for event in history.of("killed")]
    if not kills:
        return set()
    last = {event.who: event for event in history.events}
    seen = ((who, last.get(who)) for who in asked)
    return {who for who, event in seen if event is None or (event.what == "sent" and event.at < kills[-1])}


def repeated(runs: Sequence[Execution], history: History) -> tuple[list[Execution], list[Execution]]:
    """The runs beyond the first of each job: those that the queue owes, and those that are our own doing."""
    hands = defaultdict(list)
    for event in history.of("taken", "start", "end", "lost", "deferred"):
        hands[event.who].append(event)
    of_job: dict[str, list[Execution]] = defaultdict(list)
    for run in sorted(runs):
        of_job[run.who].append(run)

    def is_explained(run: Execution, earlier: list[Execution]) -> bool:
        """Whether the one before was cut short by the queue, or the queue gave up a worker that had the job.

        It gives up one that is killed before the job has ended and was acknowledged, and one that stands still.
        """
        held = hands[run.who]
        deaths = ((event.at, history.death_of(event.pid)) for event in held)
        return (
            any(before.how in {"killed", "cut"} for before in earlier)
            or any(history.was_stopped(event.pid, before=run.start) for event in held)
            or any(
                death is not None and 0 <= death.at - at < ACKNOWLEDGED[death.what] and death.at < run.start
                for at, death in deaths
            )
        )

    again = [(run, runs_of[:n]) for runs_of in of_job.values() for n, run in enumerate(runs_of) if n]
    explained = [run for run, earlier in again if is_explained(run, earlier)]
    return explained, [run for run, _ in again if run not in explained]


def unanswered(history: History, prefix: str) -> set[str]:
    """Calls that neither started nor were told why not, though their process was not killed."""
    answered = {event.who for event in history.of("start", "told", "surprise", prefix=prefix)}
    asks = history.of("asks", prefix=prefix)
    return {event.who for event in asks if event.who not in answered and history.death_of(event.pid) is None}


def overtaken(history: History, prefix: str, since: float, late: float) -> int:
    """Calls since then that started after one that had asked later, by more than a caller may be late, in seconds."""
    asked = {event.who: event.at for event in history.of("asks", prefix=prefix)}
    calls = sorted((asked[run.who], run.start) for run in history.executions(prefix) if asked[run.who] >= since)
    first_after = math.inf
    count = after = 0
    later = list(reversed(calls))
    for at, start in later:
        while later[after][0] > at + late:
            first_after = min(first_after, later[after][1])
            after += 1
        count += first_after < start - late
    return count


def recovery(starts: Iterable[float], since: float, rate: float, share: float = 0.8) -> float | None:
    """Seconds from then until a second begins in which the usual share of the rate starts; None for never."""
    times = [at for at in sorted(starts) if at >= since]
    wanted = max(1, int(rate * share))
    for first, at in enumerate([since, *times], -1):
        last = max(0, first) + wanted - 1
        if last < len(times) and times[last] <= at + 1.0:
            return at - since
    return None
