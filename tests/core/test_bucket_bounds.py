"""What holds for a token bucket whatever happens: its bound, and the order of its turns."""

from __future__ import annotations

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.bucket_and_clock import US, Bucket

from steindamm.rules.bucket import Decision, Verdict, What


class Traffic:
    """Callers of all sorts at one bucket: what starts when, and what is booked, as (turn, cost)."""

    def __init__(self, capacity: float, amount: float) -> None:
        self.bucket = Bucket(capacity, amount)
        self.starts: list[tuple[float, float]] = []
        self.booked: list[tuple[float, float]] = []
        self.forged: list[tuple[float, float]] = []
        self.has_given_forged_back = False

    def note(self, decision: Decision, cost: float) -> None:
        if decision.verdict is Verdict.GRANTED:
            self.starts.append((decision.turn, cost))
        elif decision.verdict is Verdict.BOOKED:
            self.booked.append((decision.turn, cost))

    def take(self, cost: float, _: int) -> None:
        self.note(self.bucket.take(cost, accept=5 * US), cost)

    def book(self, cost: float, _: int) -> None:
        self.note(self.bucket.book(cost), cost)

    def come_back(self, _: float, which: int) -> None:
        if self.booked:
            turn, cost = self.booked[which % len(self.booked)]
            self.note(self.bucket.come_back(turn, cost), cost)

    def forge(self, cost: float, _: int) -> None:
        decision = self.bucket.come_back(0.0, cost)
        self.note(decision, cost)
        self.forged.append((decision.turn, cost))

    def give_back(self, _: float, which: int) -> None:
        waiting = [start for start in self.starts if start[0] >= self.bucket.now]
        if waiting:
            turn, cost = waiting[which % len(waiting)]
            self.starts.remove((turn, cost))
            self.has_given_forged_back |= (turn, cost) in self.forged
            self.bucket.ask(What.GIVE_BACK, cost, turn=turn)

    def give_booking_back(self, _: float, which: int) -> None:
        if self.booked:
            turn, cost = self.booked.pop(which % len(self.booked))
            self.bucket.ask(What.GIVE_BOOKING_BACK, cost, turn=turn)


moves = st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.5])
actions = st.sampled_from([Traffic.take, Traffic.book, Traffic.come_back, Traffic.forge, Traffic.give_back])
gifts = st.just(Traffic.give_booking_back)
callers = st.tuples(moves, actions | gifts, st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 5))


@settings(max_examples=400)
@given(
    capacity=st.sampled_from([2.0, 3.0, 7.5]),
    amount=st.sampled_from([0.5, 1.0, 2.0]),
    history=st.lists(callers, max_size=40),
)
def test_no_window_holds_more_than_the_capacity_and_what_was_refilled_in_it(capacity, amount, history) -> None:
    traffic = Traffic(capacity, amount)
    for move, action, cost, which in history:
        traffic.bucket.now += move * US
        action(traffic, cost, which)
    starts = sorted(traffic.starts)
    for first, (begin, _) in enumerate(starts):
        total = 0.0
        for end, cost in starts[first:]:
            total += cost
            refills = math.floor((end - begin) / US + 1e-9) + 1
            assert total <= capacity + amount * refills + 1e-6


@settings(max_examples=200)
@given(history=st.lists(st.tuples(moves, st.booleans()), max_size=40))
def test_nobody_passes_who_asked_before(history: list[tuple[float, bool]]) -> None:
    bucket = Bucket(capacity=2)
    last = 0.0
    for move, books in history:
        bucket.now += move * US
        decision = bucket.book() if books else bucket.take()
        assert decision.turn >= last
        last = decision.turn


@settings(max_examples=200)
@given(history=st.lists(callers, max_size=40))
@example(
    history=[
        (0.0, Traffic.take, 0.5, 0), (1.0, Traffic.forge, 2.0, 0),
        (0.0, Traffic.book, 0.5, 0), (0.0, Traffic.give_back, 0.5, 0),
    ]
)  # fmt: skip
def test_no_newcomer_starts_before_a_turn_that_was_booked_before_it_asked(history) -> None:
    """Unless somebody has made up a turn, for which the line gave nothing, and gives it back to the line."""
    traffic = Traffic(capacity=2.0, amount=1.0)
    bucket = traffic.bucket
    for move, action, cost, which in history:
        bucket.now += move * US
        booked = [turn for turn, _ in traffic.booked if turn > bucket.now]
        action(traffic, cost, which)
        newcomer = bucket.take(1.0, accept=100 * US)
        if traffic.has_given_forged_back:
            return
        if action is not Traffic.give_booking_back:
            assert all(newcomer.turn >= turn for turn in booked)
