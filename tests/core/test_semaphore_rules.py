"""What the semaphore's rules promise, at times that the test sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.semaphore_and_clock import LEASE, PRESENCE, SECOND, Semaphore

from steindamm.rules.semaphore import (
    LEAST_GUESS,
    LONGEST_WAIT,
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

    @settings(deadline=None)
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


class TestOrder:
    def test_slots_are_handed_over_in_the_order_of_arrival(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        for waiter in "abc":
            assert semaphore.enter(waiter).standing is WAITING
        for leaving in ("holder", "a", "b"):
            semaphore.leave(leaving)
        assert semaphore.handed == ["a", "b", "c"]

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(["enter", "leave", "give up", "renew", "wait"]), max_size=60), st.data())
    def test_whatever_happens_meanwhile(self, events: list[str], data: st.DataObject) -> None:
        semaphore, line = Semaphore(capacity=2), []
        for number, event in enumerate(events):
            present = [waiter for waiter in line if waiter in semaphore.state.present]
            if event == "enter" and semaphore.enter(number).standing is WAITING:
                line.append(number)
            elif event == "leave" and semaphore.holders:
                semaphore.leave(data.draw(st.sampled_from(sorted(semaphore.holders))))
            elif event == "give up" and present:
                line.remove(given_up := data.draw(st.sampled_from(present)))
                semaphore.give_up(given_up)
            elif event == "renew" and present:
                renewing = data.draw(st.sampled_from(present))
                semaphore.renew(renewing, semaphore.state.present[renewing][1])
            elif event == "wait":
                semaphore.now += SECOND
        handed = [waiter for waiter in semaphore.handed if waiter in line]
        assert handed == sorted(handed)

    def test_a_newcomer_does_not_pass_those_who_wait(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("first")
        semaphore.leave("holder")
        assert semaphore.enter("newcomer").standing is WAITING

    def test_who_asks_again_stands_where_it_stood(self) -> None:
        """A client whose connection was cut may send its request twice."""
        semaphore = Semaphore()
        semaphore.enter("holder")
        place = semaphore.enter("first")
        semaphore.enter("second")
        assert semaphore.enter("first") == place
        semaphore.leave("holder")
        assert semaphore.handed == ["first"]

    def test_who_gives_up_is_not_waited_for(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("first")
        semaphore.enter("second")
        assert semaphore.give_up("first").standing is OUT
        semaphore.leave("holder")
        assert semaphore.handed == ["second"]

    def test_who_gives_up_too_late_has_the_slot(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("first")
        semaphore.leave("holder")
        assert semaphore.give_up("first").standing is HOLDING
        assert semaphore.holders == {"first"}

    def test_who_leaves_the_line_is_not_waited_for(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("first")
        assert semaphore.leave("first").standing is OUT
        semaphore.leave("holder")
        assert semaphore.handed == []
        assert is_idle(semaphore.state, semaphore.now)


class TestPresence:
    def test_a_waiter_that_vanished_is_passed_over(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("dead")
        semaphore.now += PRESENCE / 2
        semaphore.enter("living")
        semaphore.now += PRESENCE / 2
        semaphore.leave("holder")
        assert semaphore.handed == ["living"]

    def test_a_waiter_that_renews_is_waited_for_however_long(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        place = semaphore.enter("first")
        semaphore.enter("second")
        for _ in range(100):
            semaphore.now += PRESENCE / 3
            semaphore.renew("holder")
            assert semaphore.renew("first", place.number).number == place.number
        semaphore.leave("holder")
        assert semaphore.handed == ["first"]

    def test_one_that_was_passed_over_steps_back_in_where_it_stood(self) -> None:
        semaphore = Semaphore()
        semaphore.state.mean = SECOND
        semaphore.enter("holder")
        late = semaphore.enter("late")
        semaphore.now += PRESENCE
        semaphore.enter("second")
        assert semaphore.renew("late", late.number) == Place(WAITING, late.number, SECOND)
        semaphore.leave("holder")
        assert semaphore.handed == ["late"]

    def test_a_slot_that_is_handed_over_is_held_as_long_as_its_waiter_was_present(self) -> None:
        """Nobody confirms a hand-over: a waiter that died just before it keeps the slot for no longer."""
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("dying")
        semaphore.now += PRESENCE - 1
        semaphore.leave("holder")
        assert semaphore.handed == ["dying"]
        semaphore.now += 1
        assert semaphore.enter("next").standing is HOLDING


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


class TestAway:
    def test_one_who_is_away_keeps_its_number(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        first = semaphore.enter("job", Stay.AWAY)
        semaphore.enter("second")
        back = semaphore.enter("job, delivered again", Stay.LISTENING, first.number)
        assert back.number == first.number
        semaphore.leave("holder")
        assert semaphore.handed == ["job, delivered again"]

    def test_it_is_counted_once_however_often_it_comes_back(self) -> None:
        semaphore = Semaphore()
        semaphore.state.mean = SECOND
        semaphore.enter("holder")
        number = semaphore.enter("delivery 0", Stay.AWAY).number
        for delivery in range(1, 10):
            semaphore.enter(f"delivery {delivery}", Stay.AWAY, number, slack=LEASE)
        assert len(semaphore.state.present) == 1
        assert semaphore.enter("next", Stay.AWAY).wait == 2 * SECOND

    def test_no_slot_waits_for_it(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.enter("job", Stay.AWAY)
        semaphore.leave("holder")
        assert semaphore.handed == []
        assert semaphore.enter("newcomer").standing is HOLDING

    def test_it_is_told_to_come_back_when_those_ahead_have_been_through(self) -> None:
        semaphore = Semaphore(capacity=2)
        semaphore.state.mean = 10 * SECOND
        for holder in "ab":
            semaphore.enter(holder)
        waits = [semaphore.enter(f"job {number}", Stay.AWAY).wait for number in range(4)]
        assert waits == [5 * SECOND, 10 * SECOND, 15 * SECOND, 20 * SECOND]

    def test_while_no_release_has_told_holders_are_taken_to_hold_as_long_again(self) -> None:
        semaphore = Semaphore(capacity=2)
        for holder in "ab":
            semaphore.enter(holder)
        assert semaphore.enter("job 1", Stay.AWAY).wait == LEAST_GUESS / 2
        semaphore.now += 10 * SECOND
        assert semaphore.enter("job 2", Stay.AWAY).wait == 5 * SECOND

    def test_one_that_does_not_come_back_is_forgotten_after_its_slack(self) -> None:
        semaphore = Semaphore(lease=3_600 * SECOND)
        semaphore.state.mean = SECOND
        semaphore.enter("holder")
        semaphore.enter("job", Stay.AWAY, slack=2 * SECOND)
        semaphore.now += 3 * SECOND - 1
        assert semaphore.enter("x", Stay.NO).wait == 2 * SECOND
        semaphore.now += 1
        assert semaphore.enter("x", Stay.NO).wait == SECOND

    def test_its_number_counts_even_then(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        number = semaphore.enter("job", Stay.AWAY).number
        semaphore.now += 2 * SECOND
        semaphore.enter("second")
        semaphore.enter("job again", Stay.LISTENING, number)
        semaphore.leave("holder")
        assert semaphore.handed == ["job again"]

    def test_its_number_counts_even_where_the_state_was_forgotten(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        numbers = [semaphore.enter(job, Stay.AWAY).number for job in "ab"]
        semaphore.state = SemaphoreState()
        semaphore.now += SECOND
        semaphore.enter("holder")
        semaphore.enter("newcomer")
        semaphore.enter("b again", Stay.LISTENING, numbers[1])
        semaphore.enter("a again", Stay.LISTENING, numbers[0])
        for leaving in ("holder", "a again", "b again"):
            semaphore.leave(leaving)
        assert semaphore.handed == ["a again", "b again", "newcomer"]

    @pytest.mark.parametrize("number", [-5.0, 1e18, math.inf])
    def test_a_number_that_was_never_given_out_is_none(self, number: float) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        first = semaphore.enter("first")
        assert semaphore.enter("forger", Stay.LISTENING, number).number == first.number + 1

    def test_waits_are_bounded(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.leave("holder", held=1e300)
        semaphore.enter("holder")
        assert semaphore.enter("job", Stay.AWAY).wait == LONGEST_WAIT


class TestMeanHoldingTime:
    def test_it_moves_by_a_tenth_of_the_difference(self) -> None:
        semaphore = Semaphore()
        for held in (SECOND, 2 * SECOND):
            semaphore.enter("a")
            semaphore.leave("a", held)
        assert semaphore.state.mean == pytest.approx(1.1 * SECOND)

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

    @settings(deadline=None)
    @given(st.data())
    def test_it_does_what_the_long_one_does(self, data: st.DataObject) -> None:
        short, long = Semaphore(capacity=2, lease=math.inf), Semaphore(capacity=2, lease=math.inf)
        for number in range(data.draw(st.integers(1, 30))):
            short.now = long.now = long.now + data.draw(st.sampled_from([0.0, 0.5, SECOND]))
            what, asker = data.draw(st.sampled_from(["enter", "wait", "leave", "give up"])), number
            if what == "enter":
                fence = enter_at_once(short.terms, short.state, short.now, asker)
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
        assert not enter_at_once(semaphore.terms, semaphore.state, semaphore.now, "b")
        assert semaphore.holders == {"a"}

    def test_nobody_passes_the_line_on_it(self) -> None:
        semaphore = Semaphore(lease=math.inf, presence=math.inf)
        semaphore.enter("a")
        semaphore.enter("b")
        assert not enter_at_once(semaphore.terms, semaphore.state, semaphore.now, "c")
        assert not leave_at_once(semaphore.state, "a", 0.0)
