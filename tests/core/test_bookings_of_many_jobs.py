"""Two thousand jobs that book, go away, and come back late: how far the limit is used, and at what price.

No real time passes: the jobs' queue is a heap, and its lateness a number.
"""

from __future__ import annotations

import heapq
import math
import random
from itertools import count
from typing import NamedTuple

import pytest

from steindamm.rules.bucket import BucketState, BucketTerms, Request, Verdict, What
from steindamm.rules.deciding import decide

US = 1e6
HOUR = 3_600 * US


class Run(NamedTuple):
    """Starts in seconds, and deliveries a job."""

    starts: list[float]
    deliveries: float

    def used(self, rate: float, capacity: float) -> float:
        """The share of the limit that was used until the last start."""
        return (len(self.starts) - capacity) / (rate * (self.starts[-1] - self.starts[0]))

    def most_in(self, window: float) -> int:
        most = first = 0
        for last, start in enumerate(self.starts):
            while self.starts[first] <= start - window:
                first += 1
            most = max(most, last - first + 1)
        return most


def run(
    jobs: int,
    rate: float,
    capacity: float,
    late: float,
    accept: float = 1.0,
    amount: float = 1.0,
    stall: tuple[float, float] = (0, 0),
) -> Run:
    """Deliver each job until it starts; a queue is up to `late` seconds late, and nothing is delivered in a stall."""
    chance = random.Random(7)
    terms = BucketTerms(capacity, amount, amount * US / rate, capacity)
    state = BucketState(terms, 0.0)
    order = count()
    queue = [(0.0, next(order), Request(What.TAKE, 1.0, accept * US, HOUR)) for _ in range(jobs)]
    starts: list[float] = []
    deliveries = 0
    while queue:
        now, _, request = heapq.heappop(queue)
        if stall[0] <= now < stall[1]:
            heapq.heappush(queue, (stall[1], next(order), request))
            continue
        deliveries += 1
        verdict, wait, turn, _ = decide(terms, state, math.floor(now * US), request)
        if verdict is Verdict.GRANTED:
            starts.append(now + wait / US)
            continue
        assert verdict is not Verdict.REFUSED
        back = now + wait / US + chance.uniform(0, late)
        heapq.heappush(queue, (back, next(order), Request(What.COME_BACK, 1.0, accept * US, HOUR, math.ceil(turn))))
    assert len(starts) == jobs
    return Run(sorted(starts), deliveries / jobs)


def test_a_queue_a_tenth_of_a_second_late_uses_the_limit_and_delivers_no_job_more_than_twice() -> None:
    jobs = run(2_000, rate=100, capacity=10, late=0.1)
    assert jobs.used(100, 10) > 0.98
    assert jobs.deliveries <= 2
    assert jobs.most_in(1.0) <= 110


def test_a_queue_a_second_late_uses_most_of_the_limit() -> None:
    jobs = run(2_000, rate=100, capacity=10, late=1.0)
    assert jobs.used(100, 10) > 0.93
    assert jobs.deliveries < 2.5
    assert jobs.most_in(1.0) <= 110


def test_workers_that_stall_for_five_seconds_come_back_within_the_limit() -> None:
    jobs = run(2_000, rate=100, capacity=10, late=0.1, stall=(5.0, 10.0))
    assert jobs.most_in(1.0) <= 110
    assert jobs.most_in(5.0) <= 510
    assert jobs.deliveries < 2.5
    assert jobs.starts[-1] < 20 + 5 + 1


@pytest.mark.parametrize("amount", [1.0, 0.01])
def test_a_slow_limit_is_used_to_the_full_however_finely_it_refills(amount: float) -> None:
    assert run(300, rate=1, capacity=1, late=0.3, amount=amount).used(1, 1) > 0.99


def test_without_the_little_wait_a_finely_refilled_limit_would_lose_a_quarter_and_more() -> None:
    assert run(300, rate=1, capacity=1, late=0.3, amount=0.01, accept=0).used(1, 1) < 0.75
