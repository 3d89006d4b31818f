"""What the semaphore's rules promise, at times that the test sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.semaphore_and_clock import LEASE, PRESENCE, SECOND, Semaphore

from steindamm.rules.semaphore import (
    Place,
    SemaphoreState,
    Standing,
    Stay,
    What,
    enter_at_once,
    is_idle,
    leave_at_once,
)

HOLDING, WAITING, OUT = Standing.HOLDING, Standing.WAITING, Standing.OUT


class TestSlots:
    def test_there_are_as_many_as_the_capacity_says(self) -> None:
        semaphore = Semaphore(capacity=3)
        assert [semaphore.enter(asker, Stay.NO).standing for asker in "abcd"] == [HOLDING] * 3 + [OUT]

    def test_a_slot_that_is_given_back_is_free(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        assert semaphore.leave("a").standing is HOLDING
        assert semaphore.enter("b").standing is HOLDING

    def test_giving_back_twice_changes_nothing(self) -> None:
        semaphore = Semaphore(capacity=2)
        semaphore.enter("a")
        semaphore.enter("b")
        semaphore.leave("a")
        assert semaphore.leave("a").standing is OUT
        assert semaphore.holders == {"b"}

    def test_who_asks_twice_has_one_slot(self) -> None:
        semaphore = Semaphore(capacity=2)
        first, again = semaphore.enter("a"), semaphore.enter("a")
        assert first.standing is again.standing is HOLDING
        assert len(semaphore.holders) == 1

    @given(st.data())
    def test_they_never_exceed_the_highest_capacity_whatever_is_asked(self, data: st.DataObject) -> None:
        semaphore = Semaphore(capacity=3)
        askers, numbers = st.sampled_from(range(8)), st.sampled_from([0.0, 1.0, 1e9, 5e9])
        for _ in range(data.draw(st.integers(1, 60))):
            semaphore.now += data.draw(st.sampled_from([0, 1, SECOND, PRESENCE, LEASE, -SECOND]))
            semaphore.with_capacity(data.draw(st.integers(1, 3)))
            before = len(semaphore.holders)
            what, stay = data.draw(st.sampled_from(What)), data.draw(st.sampled_from(Stay))
            semaphore.ask(what, data.draw(askers), data.draw(numbers), stay)
            assert len(semaphore.holders) <= max(before, semaphore.state.capacity)
            assert len(semaphore.holders) <= 3


class TestLeases:
    def test_a_lease_that_is_not_renewed_ends(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("dead")
        semaphore.now += LEASE - 1
        assert semaphore.enter("next", Stay.NO).standing is OUT
        semaphore.now += 1
        assert semaphore.enter("next", Stay.NO).standing is HOLDING

    def test_the_traffic_of_others_does_not_keep_it(self) -> None:
        semaphore = Semaphore(capacity=2)
        semaphore.enter("dead")
        for _ in range(60):
            semaphore.now += SECOND
            semaphore.enter("other")
            semaphore.renew("other")
            semaphore.leave("other")
        assert semaphore.holders == set()

    def test_a_slot_whose_holder_died_goes_to_the_first_in_line(self) -> None:
        semaphore = Semaphore(presence=2 * LEASE)
        semaphore.enter("dead")
        semaphore.enter("first")
        semaphore.now += LEASE
        semaphore.enter("second")
        assert semaphore.handed == ["first"]

    def test_one_that_is_renewed_lasts_however_long(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        for _ in range(100):
            semaphore.now += LEASE / 3
            assert semaphore.renew("holder").standing is HOLDING
            assert semaphore.enter("other", Stay.NO).standing is OUT

    def test_a_holder_that_was_away_too_long_has_lost_its_slot(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("stopped")
        semaphore.now += LEASE
        semaphore.enter("other")
        assert semaphore.renew("stopped").standing is OUT
        assert semaphore.leave("stopped").standing is OUT
        assert semaphore.holders == {"other"}

    def test_one_that_is_lost_stays_lost_even_where_a_slot_is_free(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("stopped")
        semaphore.now += LEASE
        assert semaphore.renew("stopped").standing is OUT


class TestMeanHoldingTime:
    def test_it_moves_by_a_tenth_of_the_difference(self) -> None:
        semaphore = Semaphore()
        for held in (SECOND, 2 * SECOND):
            semaphore.enter("a")
            semaphore.leave("a", held)
        assert semaphore.state.mean == pytest.approx(1.1 * SECOND)

    def test_one_that_hung_counts_as_four_times_the_mean(self) -> None:
        semaphore = Semaphore()
        for held in (SECOND, 3_600 * SECOND):
            semaphore.enter("a")
            semaphore.leave("a", held)
        assert semaphore.state.mean == pytest.approx(1.3 * SECOND)

    def test_it_soon_tells_the_length_of_jobs_after_some_that_failed_at_once(self) -> None:
        semaphore = Semaphore()
        for held in [10.0] * 5 + [0.1 * SECOND] * 30:
            semaphore.enter("a")
            semaphore.leave("a", held)
        assert semaphore.state.mean == pytest.approx(0.1 * SECOND, rel=0.1)

    def test_a_slot_that_was_not_used_says_nothing(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        semaphore.leave("a", held=-1.0)
        assert semaphore.state.mean == 0

    def test_one_that_was_lost_says_nothing(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        semaphore.now += LEASE
        semaphore.leave("a", held=LEASE)
        assert semaphore.state.mean == 0


class TestCapacity:
    def test_a_lower_one_takes_effect_at_the_next_acquire(self) -> None:
        semaphore = Semaphore(capacity=5)
        for asker in "abcde":
            semaphore.enter(asker)
        semaphore.with_capacity(2)
        for asker in "abc":
            semaphore.leave(asker)
            assert semaphore.enter(f"after {asker}", Stay.NO).standing is OUT
        semaphore.leave("d")
        assert semaphore.enter("next", Stay.NO).standing is HOLDING

    def test_a_holder_that_knew_the_higher_one_hands_over_by_the_lower_one(self) -> None:
        """While workers are restarted with new settings, the old ones still release."""
        semaphore = Semaphore(capacity=3)
        for asker in "abc":
            semaphore.enter(asker)
        semaphore.with_capacity(1)
        semaphore.enter("waiter")
        semaphore.with_capacity(3)
        semaphore.leave("a")
        semaphore.leave("b")
        assert semaphore.handed == []
        semaphore.leave("c")
        assert semaphore.handed == ["waiter"]

    def test_a_higher_one_lets_those_in_line_in_before_the_one_who_brought_it(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("first")
        semaphore.with_capacity(2)
        assert semaphore.enter("second").standing is WAITING
        assert semaphore.handed == ["first"]


class TestFencing:
    def test_numbers_only_grow(self) -> None:
        semaphore = Semaphore(capacity=3)
        for round_ in range(20):
            for asker in "abcdef":
                semaphore.enter((asker, round_))
            semaphore.renew(("a", round_))
            semaphore.now += -SECOND if round_ % 5 == 4 else 1
            for asker in "abcdef":
                semaphore.leave((asker, round_))
        assert len(semaphore.fences) > 100
        assert semaphore.fences == sorted(set(semaphore.fences))

    def test_they_go_on_where_the_state_was_forgotten(self) -> None:
        semaphore = Semaphore()
        before = semaphore.enter("a").number
        semaphore.state = SemaphoreState()
        semaphore.now += 1
        assert semaphore.enter("b").number > before


class TestClockSetBack:
    def test_leases_last_as_long_as_they_would_have(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.now += LEASE / 2
        semaphore.enter("other", Stay.NO)
        semaphore.now -= 3_600 * SECOND
        assert semaphore.enter("other", Stay.NO).standing is OUT
        semaphore.now += LEASE / 2 - 1
        assert semaphore.enter("other", Stay.NO).standing is OUT
        semaphore.now += 1
        assert semaphore.enter("other", Stay.NO).standing is HOLDING

    def test_nobody_waits_longer_than_a_lease(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("dead")
        semaphore.now -= 3_600 * SECOND
        semaphore.enter("other", Stay.NO)
        semaphore.now += LEASE
        assert semaphore.enter("other", Stay.NO).standing is HOLDING

    def test_those_in_line_keep_their_order_and_their_presence(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        for waiter in "ab":
            semaphore.enter(waiter)
        semaphore.now -= 3_600 * SECOND
        semaphore.enter("c")
        semaphore.now += PRESENCE - 1
        for leaving in ("holder", "a", "b"):
            semaphore.leave(leaving)
        assert semaphore.handed == ["a", "b", "c"]


class TestCounters:
    def test_they_tell_how_many_requests_ended_how(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        semaphore.enter("b")
        semaphore.enter("c", Stay.AWAY)
        semaphore.enter("d", Stay.NO)
        semaphore.give_up("b")
        assert (semaphore.state.granted, semaphore.state.deferred, semaphore.state.refused) == (1, 1, 2)

    def test_they_tell_how_long_those_who_were_let_in_had_waited(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        semaphore.enter("b")
        number = semaphore.enter("c", Stay.AWAY).number
        semaphore.now += 2 * SECOND
        semaphore.leave("a")
        assert semaphore.state.waited == pytest.approx(2 * SECOND, abs=5)
        semaphore.now += SECOND
        semaphore.leave("b")
        semaphore.enter("c again", Stay.AWAY, number)
        assert semaphore.state.waited == pytest.approx(5 * SECOND, abs=5)


class TestIdleness:
    def test_a_semaphore_is_idle_when_nobody_holds_or_waits(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        assert not is_idle(semaphore.state, semaphore.now)
        semaphore.enter("b", Stay.AWAY)
        semaphore.leave("a")
        assert not is_idle(semaphore.state, semaphore.now)
        semaphore.now += SECOND
        assert is_idle(semaphore.state, semaphore.now)


class TestTheShortWay:
    """For the most frequent case there is a short way, in memory; it does what the long one does, or nothing."""

    @given(st.data())
    def test_it_does_what_the_long_one_does(self, data: st.DataObject) -> None:
        short, long = Semaphore(capacity=2, lease=math.inf), Semaphore(capacity=2, lease=math.inf)
        for number in range(data.draw(st.integers(1, 30))):
            short.now = long.now = long.now + data.draw(st.sampled_from([0.0, 0.5, SECOND]))
            what, asker = data.draw(st.sampled_from(["enter", "wait", "leave", "give up"])), number
            if what == "enter":
                fence = enter_at_once(short.terms.capacity, short.state, short.now, asker)
                place = long.enter(asker, Stay.NO)
                if fence:
                    assert place == Place(HOLDING, fence, 0.0)
                else:
                    assert short.enter(asker, Stay.NO) == place
            elif what == "leave" and long.holders:
                asker, held = data.draw(st.sampled_from(sorted(long.holders))), data.draw(st.sampled_from([-1.0, 5e5]))
                if not leave_at_once(short.state, asker, held):
                    short.leave(asker, held)
                long.leave(asker, held)
            else:
                call = Semaphore.enter if what == "wait" else Semaphore.give_up
                assert call(short, asker) == call(long, asker)
            short.state.seen = long.state.seen
            for field in SemaphoreState.__slots__:
                assert getattr(short.state, field) == getattr(long.state, field)

    def test_it_is_not_for_leases_that_end(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("a")
        assert not leave_at_once(semaphore.state, "a", 0.0)
        semaphore.now += LEASE
        assert not enter_at_once(semaphore.terms.capacity, semaphore.state, semaphore.now, "b")
        assert semaphore.holders == {"a"}

    def test_nobody_passes_the_line_on_it(self) -> None:
        semaphore = Semaphore(lease=math.inf, presence=math.inf)
        semaphore.enter("a")
        semaphore.enter("b")
        assert not enter_at_once(semaphore.terms.capacity, semaphore.state, semaphore.now, "c")
        assert not leave_at_once(semaphore.state, "a", 0.0)
