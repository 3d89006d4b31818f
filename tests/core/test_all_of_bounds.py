"""What holds for several limits at once whatever happens: none is exceeded, and a refusal leaves all as they were."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.limits import Limit
from support.limits_and_clock import US, Limits, a_bucket, a_semaphore

from steindamm.rules import bucket, semaphore
from steindamm.rules.all_of import Verdict
from steindamm.rules.bucket import BucketTerms

limit_kinds = st.lists(
    st.builds(a_bucket, st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0.5, 1.0]), st.sampled_from([0.3, 1.0, 4.0]))
    | st.builds(a_semaphore, st.integers(1, 3)),
    min_size=1,
    max_size=4,
)
moves = st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0, 2.5])
actions = st.sampled_from(["new", "new", "new", "back", "back", "forge", "alone", "end"])
callers = st.tuples(
    moves, actions, st.integers(0, 20), st.sampled_from([0.0, 0.05, 1.0]), st.sampled_from([0.0, 3.0, 50.0])
)


class Crowd:
    """Callers of all sorts at some limits: what has started when, and who holds a slot."""

    def __init__(self, limits: list[Limit]) -> None:
        self.at = Limits(*limits)
        self.starts: list[list[tuple[float, float]]] = [[] for _ in limits]
        self.waiting: list[tuple[str, tuple[float, ...]]] = []
        self.holding: list[tuple[int, str]] = []
        self.names = count(1)

    def act(self, action: str, which: int, accept: float, horizon: float) -> None:
        if action == "end":
            if self.holding:
                self.at.leave(*self.holding.pop(which % len(self.holding)))
        elif action == "alone":
            self._alone(which % len(self.at.limits))
        elif action == "back" and self.waiting:
            name, turns = self.waiting.pop(which % len(self.waiting))
            self._ask(name, turns, accept, horizon)
        else:
            turn = 1.0 if action == "forge" else 0.0
            self._ask(f"caller-{next(self.names)}", (turn,) * len(self.at.limits), accept, horizon)

    def _alone(self, index: int) -> None:
        if self.at.limits[index].kind == "s":
            name = f"alone-{next(self.names)}"
            if self.at.enter_alone(index, name).standing is semaphore.Standing.HOLDING:
                self.holding.append((index, name))
            return
        verdict, wait, *_ = self.at.take_alone(index, accept=5 * US)
        if verdict is bucket.Verdict.GRANTED:
            self.starts[index].append((self.at.now + wait / US, 1.0))

    def _ask(self, name: str, turns: tuple[float, ...], accept: float, horizon: float) -> None:
        question = self.at.question(*turns, asker=name, accept=accept * US, horizon=horizon * US)
        before = self.at.brought_to_now(question)
        states = [limit.state for limit in self.at.limits if limit.kind == "s" and limit.state]
        has_something = any(name in state.leases or name in state.present for state in states)
        decision = self.at.request(question)
        if decision.verdict is Verdict.GRANTED:
            for index, limit in enumerate(self.at.limits):
                if limit.kind == "b":
                    self.starts[index].append((self.at.now + decision.wait / US, 1.0))
                else:
                    self.holding.append((index, name))
        elif decision.verdict is Verdict.WAITING:
            new = decision.given[decision.which]
            self.waiting.append((name, (*turns[: decision.which], new, *turns[decision.which + 1 :])))
        elif not has_something:
            assert self.at.brought_to_now(question) == before

    def assert_that_no_limit_is_exceeded(self) -> None:
        for limit, starts in zip(self.at.limits, self.starts, strict=True):
            if limit.kind == "s":
                assert limit.state is None or len(limit.state.leases) <= limit.terms.capacity
            else:
                assert_bound(limit.terms, sorted(starts))


def assert_bound(terms: BucketTerms, starts: list[tuple[float, float]]) -> None:
    """No window holds more than the capacity and what is refilled in it."""
    for first, (begin, _) in enumerate(starts):
        total = 0.0
        for end, cost in starts[first:]:
            total += cost
            refills = math.floor((end - begin) * US / terms.step + 1e-9) + 1
            assert total <= terms.capacity + terms.amount * refills + 1e-6


@settings(max_examples=300)
@given(limits=limit_kinds, history=st.lists(callers, max_size=40))
def test_no_limit_is_exceeded_and_a_refusal_leaves_all_as_they_were(limits: list[Limit], history: list[Any]) -> None:
    limits = [type(limit)(limit.terms) for limit in limits]
    crowd = Crowd(limits)
    for move, action, which, accept, horizon in history:
        crowd.at.now += move
        crowd.act(action, which, accept, horizon)
        for limit in limits:
            if limit.kind == "s" and limit.state is not None:
                assert len(limit.state.leases) <= limit.terms.capacity
    crowd.assert_that_no_limit_is_exceeded()
