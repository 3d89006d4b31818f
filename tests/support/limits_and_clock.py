"""Some limits, and a time that the test sets."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

from steindamm.rules import bucket, semaphore
from steindamm.rules.all_of import Ask, Decision, Request, What
from steindamm.rules.bucket import BucketTerms
from steindamm.rules.semaphore import SemaphoreTerms, Stay
from support.limits import Bucket, Limit, Semaphore, ask_all

US = 1e6
HOUR = 3_600 * US
FOREVER = math.inf


def a_bucket(capacity: float = 1.0, amount: float = 1.0, step: float = 1.0) -> Bucket:
    return Bucket(BucketTerms(capacity, amount, step * US, capacity, keep=60 * US))


def a_semaphore(capacity: int = 1) -> Semaphore:
    return Semaphore(SemaphoreTerms(capacity, FOREVER, FOREVER))


class Limits:
    """Some limits and a clock, in seconds."""

    def __init__(self, *limits: Limit) -> None:
        self.limits = limits
        self.now = 1_000.0
        self._askers = count(1)

    def ask(self, *turns: float, cost: float = 1.0, accept: float = 0.0, horizon: float = HOUR, **how: Any) -> Decision:
        """One caller's request to all, with the turns that it has; whoever asks semaphores is somebody new."""
        return self.request(self.question(*turns, cost=cost, accept=accept, horizon=horizon, **how))

    def question(
        self, *turns: float, cost: float = 1.0, asker: str = "", stay: Stay = Stay.LISTENING, **how: Any
    ) -> Request:
        turns = turns or (0.0,) * len(self.limits)
        asker = asker or f"asker-{next(self._askers)}"
        asks = [
            Ask(cost, turn) if limit.kind == "b" else Ask(0.0, turn, asker)
            for limit, turn in zip(self.limits, turns, strict=True)
        ]
        return Request(tuple(asks), stay=stay, **how)

    def request(self, request: Request) -> Decision:
        return ask_all(self.limits, self.now * US, request)

    def take_alone(self, index: int, cost: float = 1.0, accept: float = HOUR) -> bucket.Decision:
        return self.limits[index].ask(self.now * US, bucket.Request(bucket.What.TAKE, cost, accept))

    def enter_alone(self, index: int, asker: str) -> semaphore.Place:
        asking = semaphore.Request(semaphore.What.ENTER, asker, 0.0, Stay.LISTENING)
        return self.limits[index].ask(self.now * US, asking)

    def leave(self, index: int, asker: str) -> None:
        self.limits[index].ask(self.now * US, semaphore.Request(semaphore.What.LEAVE, asker, 1.0))

    def levels(self, index: int) -> tuple[float, float]:
        """The line and the pace of a bucket now."""
        part = self.limits[index].part(self.now * US)
        part.look(Ask(0.0), Request(()))
        return part.state.line, part.state.pace

    def known(self) -> list[Any]:
        return [limit.known() for limit in self.limits]

    def brought_to_now(self, question: Request) -> list[Any]:
        """What there is to know of each, but for the time, and how often it has refused."""
        self.request(question._replace(what=What.LOOK))
        return [self._brought_to_now(index, limit) for index, limit in enumerate(self.limits)]

    def _brought_to_now(self, index: int, limit: Limit) -> Any:
        state = limit.state
        if isinstance(limit, Semaphore):
            return state and (dict(state.leases), list(state.listening), list(state.away), dict(state.present))
        return self.levels(index), state and (state.granted, state.deferred, state.waited)
