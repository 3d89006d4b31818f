"""The token bucket's arithmetic, at times that the test sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bucket_and_clock import HOUR, US, Bucket

from steindamm.rules.bucket import ENDLESS, Decision, Verdict, What, kept_until, take_at_once


def test_a_full_bucket_lets_its_capacity_start_and_then_one_each_step() -> None:
    bucket = Bucket(capacity=3)
    assert [bucket.take().wait for _ in range(6)] == [0, 0, 0, US, 2 * US, 3 * US]


def test_turns_come_in_the_order_of_asking_and_no_two_are_the_same() -> None:
    bucket = Bucket(capacity=2, amount=0.5)
    turns = []
    for _ in range(50):
        bucket.now += 0.13 * US
        turns.append(bucket.take().turn)
    assert turns == sorted(set(turns))


def test_a_refused_request_takes_nothing_and_is_told_the_wait() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    refused = [bucket.take(accept=0.5 * US) for _ in range(5)]
    assert {(decision.verdict, decision.wait) for decision in refused} == {(Verdict.REFUSED, US)}
    assert bucket.take().wait == US


def test_the_longest_wait_that_is_accepted_is_accepted() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    assert bucket.take(accept=US).verdict is Verdict.GRANTED


def test_the_grid_starts_when_the_bucket_stops_being_full() -> None:
    bucket = Bucket(capacity=1)
    bucket.now = 0.7 * US
    bucket.take()
    assert bucket.take().turn == 1.7 * US


def test_what_is_left_of_a_step_stays() -> None:
    bucket = Bucket(capacity=10, step=0.1 * US)
    bucket.drained()
    starts = 0
    for _ in range(100):
        bucket.now += 1.9 * US / 10
        starts += bucket.drained()
    assert starts == 190


@pytest.mark.parametrize("step", [US / 3, 0.1 * US, 333.3, 7.0])
def test_the_grid_does_not_drift(step: float) -> None:
    bucket = Bucket(capacity=1, step=step, now=1.7e15)
    start, count = bucket.now, 20_000
    bucket.take()
    for _ in range(count):
        decision = bucket.take()
        bucket.now = math.ceil(decision.turn)
    assert bucket.now - start == pytest.approx(count * step, rel=0.001)


def test_fractions_of_tokens_add_up_exactly_enough() -> None:
    bucket = Bucket(capacity=1, amount=0.1, step=0.1 * US)
    bucket.take()
    for _ in range(1_000):
        decision = bucket.take()
        assert decision.wait == pytest.approx(US, abs=2)
        bucket.now = math.ceil(decision.turn)


def test_dust_that_rounding_left_missing_costs_nobody_a_step() -> None:
    bucket = Bucket(capacity=1, amount=0.3, step=US, initial=0.0)
    bucket.now = 3 * US
    assert bucket.at_once(0.1 + 0.2 + 0.6)


def test_dust_adds_up_to_no_token() -> None:
    bucket = Bucket(capacity=1e-6, amount=1e-6)
    assert bucket.drained(cost=1e-7) <= 10


def test_half_a_token_is_half_a_token() -> None:
    bucket = Bucket(capacity=1, amount=0.5)
    bucket.take()
    bucket.now = US
    assert not bucket.at_once(1.0)
    assert bucket.at_once(0.5)


def test_initial_tokens_are_what_a_new_bucket_holds() -> None:
    assert Bucket(capacity=5, initial=0.0).drained() == 0
    assert Bucket(capacity=5, initial=2.5).drained(0.5) == 5


def test_a_large_cost_waits_its_turn_among_small_ones_and_no_longer() -> None:
    bucket = Bucket(capacity=10)
    bucket.drained()
    small = [bucket.take(1).turn for _ in range(3)]
    large = bucket.take(8)
    after = bucket.take(1)
    assert small == [US, 2 * US, 3 * US]
    assert large.turn == 11 * US
    assert after.turn == 12 * US


def test_a_cost_of_nothing_changes_nothing() -> None:
    bucket = Bucket(capacity=2)
    bucket.take(2)
    before = bucket.state.line, bucket.state.pace
    assert bucket.take(0.0, accept=0.0).verdict is Verdict.GRANTED
    assert (bucket.state.line, bucket.state.pace) == before


# Quotas


def test_a_quota_never_refills_and_says_that_no_wait_helps() -> None:
    bucket = Bucket(capacity=3, amount=0.0, step=0.0)
    assert bucket.drained() == 3
    bucket.now = 1e15
    assert bucket.take() == Decision(Verdict.REFUSED, ENDLESS, ENDLESS)
    assert bucket.book().verdict is Verdict.REFUSED
    assert bucket.come_back(turn=0.0, accept=ENDLESS).verdict is Verdict.REFUSED


def test_a_quota_takes_back_what_was_not_used_however_late() -> None:
    bucket = Bucket(capacity=1, amount=0.0, step=0.0)
    turn = bucket.take().turn
    bucket.now = HOUR
    assert bucket.ask(What.GIVE_BACK, turn=turn).verdict is Verdict.GRANTED
    assert bucket.drained() == 1


def test_a_quota_is_kept_for_its_time_and_no_longer() -> None:
    bucket = Bucket(capacity=3, amount=0.0, step=0.0, keep=HOUR)
    bucket.take()
    assert kept_until(bucket.terms, bucket.state, bucket.now) == HOUR


# Windows


def test_refills_lie_on_the_grid_of_the_calendar() -> None:
    bucket = Bucket(capacity=100, amount=100, step=HOUR, anchor=0.25 * HOUR, now=10.5 * HOUR)
    assert bucket.drained() == 100
    assert bucket.take(100).turn == 11.25 * HOUR
    assert bucket.take(100).turn == 12.25 * HOUR


def test_a_calendar_window_does_not_open_twice_when_the_clock_steps_back_over_its_start() -> None:
    bucket = Bucket(capacity=10, amount=10, step=HOUR, anchor=0.0, now=10.9 * HOUR)
    bucket.drained()
    bucket.now = 11.001 * HOUR
    assert bucket.drained() == 10
    bucket.now = 10.999 * HOUR
    assert bucket.drained() == 0
    bucket.now = 11.1 * HOUR
    assert bucket.drained() == 0
    bucket.now = 12.0 * HOUR
    assert bucket.drained() == 10


# Clocks


@pytest.mark.parametrize("anchor", [-1.0, 0.0])
def test_a_clock_that_was_set_back_an_hour_stalls_nobody_for_longer_than_a_step(anchor: float) -> None:
    bucket = Bucket(capacity=1, now=10 * HOUR, anchor=anchor)
    bucket.take()
    bucket.now = 9 * HOUR
    assert bucket.take().wait <= US


def test_a_clock_that_steps_back_a_little_again_and_again_does_not_refill_faster() -> None:
    bucket = Bucket(capacity=1, now=HOUR)
    real = starts = 0.0
    bucket.take()
    for number in range(1_000):
        real += 0.1
        bucket.now += 0.1 * US
        if number % 7 == 0:
            bucket.now -= 0.25 * US
        starts += bucket.drained()
    assert starts <= real


# A lower capacity


def test_a_lower_capacity_takes_effect_at_the_next_request() -> None:
    bucket = Bucket(capacity=10)
    bucket.terms = bucket.terms._replace(capacity=2.0)
    assert bucket.drained() == 2


def test_a_lower_capacity_of_a_quota_takes_effect_at_the_next_request() -> None:
    bucket = Bucket(capacity=10, amount=0.0, step=0.0)
    bucket.terms = bucket.terms._replace(capacity=2.0)
    assert bucket.drained() == 2


# Bookings


def test_a_booking_takes_a_turn_in_the_line_and_nothing_from_the_pace() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    pace = bucket.state.pace
    assert bucket.book() == Decision(Verdict.BOOKED, US, US)
    assert bucket.book() == Decision(Verdict.BOOKED, 2 * US, 2 * US)
    assert bucket.state.pace == pace


def test_a_booked_turn_starts_when_it_has_come() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turn = bucket.book().turn
    bucket.now = turn
    assert bucket.come_back(turn) == Decision(Verdict.GRANTED, 0, turn)


def test_who_is_back_early_is_told_how_long_and_keeps_its_turn() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    bucket.book(), bucket.book()
    turn = bucket.book().turn
    bucket.now = 0.5 * US
    assert bucket.come_back(turn) == Decision(Verdict.EARLY, 2.5 * US, turn)
    bucket.now = 2.2 * US
    assert bucket.come_back(turn) == Decision(Verdict.GRANTED, 0.8 * US, turn)


def test_a_newcomer_does_not_pass_a_booked_turn() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    booked = [bucket.book().turn for _ in range(5)]
    for late in range(6):
        bucket.now = (late + 0.5) * US
        assert bucket.take(accept=0.0).verdict is Verdict.REFUSED
    assert bucket.take().turn > booked[-1]


def test_who_is_beyond_the_horizon_is_refused_and_told_the_wait() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    booked = [bucket.book(horizon=5 * US).verdict for _ in range(7)]
    assert booked == [Verdict.BOOKED] * 5 + [Verdict.REFUSED] * 2
    assert bucket.book(horizon=5 * US).wait == 6 * US


def test_a_lost_booking_costs_its_own_turn_and_no_other() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turns = [bucket.book().turn for _ in range(3)]
    bucket.now = turns[1]
    assert bucket.come_back(turns[1]).verdict is Verdict.GRANTED
    bucket.now = turns[2]
    assert bucket.come_back(turns[2]).verdict is Verdict.GRANTED


def test_a_doubled_booking_gains_a_place_but_no_token() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turn = bucket.book().turn
    bucket.now = turn
    decisions = [bucket.come_back(turn, accept=0.0) for _ in range(4)]
    assert [decision.verdict for decision in decisions] == [Verdict.GRANTED] + [Verdict.BOOKED] * 3


def test_a_forged_booking_starts_within_the_pace() -> None:
    bucket = Bucket(capacity=2)
    starts = []
    for number in range(400):
        bucket.now = number * 0.05 * US
        decision = bucket.come_back(turn=0.0, accept=0.0)
        starts += [bucket.now] if decision.verdict is Verdict.GRANTED else []
    assert len(starts) <= 2 + 20


@pytest.mark.parametrize("turn", [0.0, 1e300, 9e15])
def test_a_turn_that_nobody_can_have_given_counts_as_the_end_of_the_line(turn: float) -> None:
    bucket = Bucket(capacity=1, now=HOUR)
    bucket.take()
    end = bucket.book().turn
    assert bucket.come_back(turn, accept=ENDLESS).turn <= end


def test_who_finds_the_pace_taken_waits_a_little_for_it() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turns = [bucket.book().turn for _ in range(2)]
    bucket.now = turns[1]
    assert bucket.come_back(turns[0]).wait == 0
    assert bucket.come_back(turns[1]) == Decision(Verdict.GRANTED, US, 3 * US)


def test_who_would_have_to_wait_long_for_the_pace_books_again_behind_the_line() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turns = [bucket.book().turn for _ in range(10)]
    bucket.now = turns[-1] + 0.5 * US
    verdicts = [bucket.come_back(turn, accept=0.6 * US).verdict for turn in turns]
    assert verdicts == [Verdict.GRANTED, Verdict.GRANTED] + [Verdict.BOOKED] * 8


# Gifts


def test_the_last_turn_goes_back_and_is_given_again() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    turns = [bucket.take().turn for _ in range(3)]
    assert bucket.ask(What.GIVE_BACK, turn=turns[2]).verdict is Verdict.GRANTED
    assert bucket.ask(What.GIVE_BACK, turn=turns[1]).verdict is Verdict.GRANTED
    assert bucket.take().turn == turns[1]


def test_a_turn_with_another_after_it_stays_given() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    first, last = bucket.take().turn, bucket.take().turn
    assert bucket.ask(What.GIVE_BACK, turn=first).verdict is Verdict.REFUSED
    assert bucket.take().turn > last


def test_a_booking_goes_back_to_the_line_alone() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    pace, turn = bucket.state.pace, bucket.book().turn
    assert bucket.ask(What.GIVE_BOOKING_BACK, turn=turn).verdict is Verdict.GRANTED
    assert bucket.state.pace == pace
    assert bucket.book().turn == turn


def test_tokens_taken_at_once_go_back_until_a_refill_has_come() -> None:
    bucket = Bucket(capacity=3)
    turn = bucket.take(2).turn
    bucket.now = 0.9 * US
    assert bucket.ask(What.GIVE_BACK, cost=2, turn=turn).verdict is Verdict.GRANTED
    turn = bucket.take(2).turn
    bucket.now += 1.1 * US
    assert bucket.ask(What.GIVE_BACK, cost=2, turn=turn).verdict is Verdict.REFUSED


def test_a_gift_fills_the_bucket_no_higher_than_its_capacity() -> None:
    bucket = Bucket(capacity=2)
    for _ in range(5):
        bucket.ask(What.GIVE_BACK, cost=2, turn=bucket.now)
    assert bucket.drained() == 2


# Memory


def test_a_bucket_is_kept_until_it_is_full_again_and_for_its_time_at_least() -> None:
    bucket = Bucket(capacity=100, step=36 * US, keep=60 * US)
    bucket.take()
    assert kept_until(bucket.terms, bucket.state, bucket.now) == 60 * US
    bucket.take(99)
    assert kept_until(bucket.terms, bucket.state, bucket.now) == HOUR


def test_the_counters_tell_what_became_of_the_requests() -> None:
    bucket = Bucket(capacity=1)
    bucket.take()
    bucket.take()
    bucket.book()
    bucket.take(accept=0.0)
    state = bucket.state
    assert (state.granted, state.deferred, state.refused, state.waited) == (2, 1, 1, 3 * US)


# The short way


FIELDS = ("line", "pace", "grid", "granted", "deferred", "refused", "waited")
MOVES = st.sampled_from([0.0, 0.3 * US, US, 5 * US, -0.2 * US, -3 * US])
COSTS = st.sampled_from([0.0, 0.1, 1.0, 2.5, 3.0])
STEPS = st.lists(st.tuples(MOVES, COSTS, st.sampled_from(["take", "book", "settle", "close"])), max_size=30)


def took_at_once(bucket: Bucket, cost: float) -> bool:
    return take_at_once(bucket.terms.capacity, bucket.terms.step, bucket.state, bucket.now, cost)


@given(STEPS, st.sampled_from([-1.0, 0.25 * US]), st.sampled_from([US, 0.0]))
def test_it_does_what_the_long_one_does_or_nothing(
    steps: list[tuple[float, float, str]], anchor: float, step: float
) -> None:
    short, long = (Bucket(capacity=3, anchor=anchor, step=step, amount=0.7, now=10 * US) for _ in range(2))
    for move, cost, what in steps:
        short.now = long.now = long.now + move
        if what == "take":
            taken = took_at_once(short, cost)
            decision = long.take(cost)
            assert not taken or decision == Decision(Verdict.GRANTED, 0.0, long.now)
            assert taken or short.take(cost) == decision
        else:
            for bucket in (short, long):
                {"book": bucket.book, "settle": bucket.settle, "close": bucket.close}[what](cost)
        for field in FIELDS:
            assert getattr(short.state, field) == getattr(long.state, field), field


def test_it_is_taken_where_tokens_are_there() -> None:
    bucket = Bucket(capacity=3)
    bucket.take()
    assert [took_at_once(bucket, 1.0) for _ in range(3)] == [True, True, False]
