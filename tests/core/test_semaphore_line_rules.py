"""What the semaphore's rules promise to those in line, at times that the test sets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.semaphore_and_clock import LEASE, PRESENCE, SECOND, Semaphore

from steindamm.rules.semaphore import (
    LEAST_GUESS,
    LONGEST_WAIT,
    Place,
    SemaphoreState,
    Standing,
    Stay,
    is_idle,
)

HOLDING, WAITING, OUT = Standing.HOLDING, Standing.WAITING, Standing.OUT


class TestOrder:
    def test_slots_are_handed_over_in_the_order_of_arrival(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        for waiter in "abc":
            assert semaphore.enter(waiter).standing is WAITING
        for leaving in ("holder", "a", "b"):
            semaphore.leave(leaving)
        assert semaphore.handed == ["a", "b", "c"]

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

    def test_a_newcomer_is_behind_all_also_where_the_state_was_lost_and_the_clock_then_set_back(self) -> None:
        semaphore = Semaphore()
        semaphore.enter("holder")
        semaphore.renew("first", semaphore.now)
        semaphore.now -= SECOND
        semaphore.enter("newcomer")
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
