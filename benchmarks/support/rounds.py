"""Interleaved rounds: everybody once a round, in a new order each time, and compared within the round.

What disturbs the machine disturbs a round; the ratio of two times of one round hardly moves.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.support.crew import Crew

WARM_UP = 50
"""Calls after which connections are open and scripts are loaded."""


Figure = TypeVar("Figure")


def interleaved(crews: Sequence[Crew], rounds: int, measure: Callable[[Crew], Figure]) -> dict[str, list[Figure]]:
    """What was measured of each, by name, one figure a round."""
    figures: dict[str, list[Figure]] = {crew.name: [] for crew in crews}
    for _ in range(rounds):
        for crew in random.sample(crews, len(crews)):
            figures[crew.name].append(measure(crew))
    return figures


def call_times(
    crews: Sequence[Crew], rounds: int, seconds: float = 0.03, clock: str = "perf_counter"
) -> dict[str, list[float]]:
    """Seconds a call of each, one figure a round.

    Parameters:
        crews: Who calls.
        rounds: Many short ones tell more than a few long ones where others use the machine, too.
        seconds: How long one of them takes in one round, about.
        clock: Of the `time` module; ``"thread_time"`` counts only while the processor is ours.
    """
    times = {}
    for crew in crews:
        crew.calls(WARM_UP)
        times[crew.name] = WARM_UP
        for _ in range(2):
            times[crew.name] = max(10, int(times[crew.name] * seconds / crew.calls(times[crew.name])))
    return interleaved(crews, rounds, lambda crew: crew.calls(times[crew.name], clock) / times[crew.name])


def ratios(figures: Sequence[float], limits: Sequence[float]) -> list[float]:
    """Least, median and most of the ratios within each round."""
    return spread([figure / limit for figure, limit in zip(figures, limits, strict=True)])


def spread(figures: Sequence[float]) -> list[float]:
    """Least, median and most."""
    return [min(figures), statistics.median(figures), max(figures)]
