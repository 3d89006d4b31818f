"""Several limits at once: what is decided about one request."""

from __future__ import annotations

import pytest
from support.limits import Bucket
from support.limits_and_clock import FOREVER, HOUR, US, Limits, a_bucket, a_semaphore

from steindamm.rules import bucket, semaphore
from steindamm.rules.all_of import Verdict, What, undoing
from steindamm.rules.bucket import BucketTerms
from steindamm.rules.changes import Change, Kind
from steindamm.rules.semaphore import Stay


class TestWhereAllHaveIt:
    def test_each_gives_it(self) -> None:
        limits = Limits(a_bucket(3), a_bucket(5), a_semaphore())
        assert limits.ask(cost=2).verdict is Verdict.GRANTED
        assert (limits.levels(0), limits.levels(1)) == ((1, 1), (3, 3))
        assert len(limits.limits[2].state.leases) == 1


class TestWhoeverHasGone:
    """What was decided about it is undone."""

    def undone(self, limits: Limits, *turns: float) -> None:
        request = limits.question(*turns, accept=0.0, horizon=HOUR)
        limits.request(undoing(request, limits.request(request)))

    def test_gives_back_what_was_granted(self) -> None:
        limits = Limits(a_bucket(3), a_semaphore())
        self.undone(limits)
        assert limits.levels(0) == (3, 3)
        assert not limits.limits[1].state.leases

    def test_gives_back_what_was_granted_at_a_turn_of_its_own(self) -> None:
        limits = Limits(a_bucket(2), a_bucket(5))
        limits.take_alone(0, cost=2.0)
        turn = limits.ask().given[0]
        limits.now += 1
        self.undone(limits, turn, 0.0)
        assert (limits.levels(0), limits.levels(1)) == ((1, 1), (5, 5))

    def test_has_not_held_its_slot(self) -> None:
        limits = Limits(a_bucket(3), a_semaphore())
        self.undone(limits)
        assert limits.limits[1].state.mean == 0

    def test_gives_back_a_turn_that_was_booked(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.take_alone(0)
        self.undone(limits)
        assert (limits.levels(0), limits.levels(1)) == ((0, 0), (5, 5))

    def test_keeps_the_turn_that_it_had_before(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.take_alone(0)
        turn = limits.ask().given[0]
        self.undone(limits, turn, 0.0)
        assert limits.levels(0) == (-1, 0)


class TestWhereOneIsShort:
    def test_the_others_stay_as_they_were(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5), a_semaphore())
        limits.take_alone(0)
        before = limits.known()
        assert limits.ask().verdict is Verdict.WAITING
        assert limits.known()[1:] == before[1:]

    def test_a_turn_is_booked_there(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.take_alone(0)
        waits = [limits.ask().wait / US for _ in range(3)]
        assert waits == [1, 2, 3]
        assert limits.levels(0) == (-3, 0)

    def test_the_wait_is_the_longest_of_all(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(1, step=7), a_semaphore())
        limits.take_alone(0)
        limits.take_alone(1)
        decision = limits.ask()
        assert (decision.which, decision.wait / US) == (1, 7)
        assert limits.levels(0) == (0, 0)

    def test_whoever_comes_back_at_its_turn_starts(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.take_alone(0)
        turn = limits.ask().given[0]
        limits.now += 1
        assert limits.ask(turn, 0.0).verdict is Verdict.GRANTED
        assert (limits.levels(0), limits.levels(1)) == ((0, 0), (4, 4))

    def test_whoever_comes_early_keeps_its_turn_and_touches_nothing(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.take_alone(0)
        turn = limits.ask().given[0]
        before = limits.known()
        limits.now += 0.25
        decision = limits.ask(turn, 0.0)
        assert (decision.verdict, decision.wait / US, decision.given[0]) == (Verdict.WAITING, 0.75, turn)
        assert limits.known() == before

    def test_whoever_comes_back_and_finds_another_short_waits_there_and_keeps_both_turns(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(1, step=5))
        limits.take_alone(0)
        first = limits.ask().given[0]
        limits.now += 1
        limits.take_alone(1)
        decision = limits.ask(first, 0.0)
        assert (decision.which, decision.wait / US) == (1, 5)
        limits.now += 5
        assert limits.ask(first, decision.given[1]).verdict is Verdict.GRANTED

    def test_a_forged_turn_gains_no_token(self) -> None:
        limits = Limits(a_bucket(2), a_bucket(5))
        verdicts = [limits.ask(1.0, 1.0).verdict for _ in range(4)]
        assert verdicts == [Verdict.GRANTED] * 2 + [Verdict.WAITING] * 2


class TestRefusals:
    def test_name_the_limit_that_refuses_and_touch_nothing(self) -> None:
        limits = Limits(a_bucket(5), a_bucket(1, step=60), a_semaphore())
        limits.take_alone(1)
        before = limits.known()
        decision = limits.ask(horizon=30 * US)
        assert (decision.verdict, decision.which, decision.wait / US) == (Verdict.REFUSED, 1, 60)
        assert before[0] == limits.known()[0]
        assert before[2] == limits.known()[2]
        assert limits.limits[1].state.refused == 1

    def test_come_before_waits_however_long_those_are(self) -> None:
        """A semaphore's wait is a guess; a bucket's is known, and there is no use in standing in line first."""
        limits = Limits(a_bucket(1, step=60), a_semaphore())
        limits.take_alone(0)
        for number in range(100):
            limits.enter_alone(1, f"other-{number}")
        limits.now += 50
        decision = limits.ask(horizon=5 * US)
        assert (decision.verdict, decision.which) == (Verdict.REFUSED, 0)

    def test_of_a_quota_that_is_spent_tell_that_no_wait_helps(self) -> None:
        limits = Limits(a_bucket(), Bucket(BucketTerms(1.0, 0.0, 0.0, 1.0, keep=60 * US)))
        limits.take_alone(1)
        decision = limits.ask(accept=FOREVER)
        assert (decision.verdict, decision.which, decision.wait) == (Verdict.REFUSED, 1, FOREVER)

    def test_of_one_who_does_not_stay_name_the_semaphore(self) -> None:
        limits = Limits(a_bucket(), a_semaphore())
        limits.enter_alone(1, "other")
        decision = limits.ask(stay=Stay.NO)
        assert (decision.verdict, decision.which) == (Verdict.REFUSED, 1)
        assert limits.limits[1].state.refused == 1

    def test_of_one_who_just_looks_change_nothing(self) -> None:
        limits = Limits(a_bucket(1, step=60), a_semaphore())
        limits.take_alone(0)
        before = limits.known()
        assert limits.ask(horizon=0.0, what=What.LOOK).verdict is Verdict.REFUSED
        assert limits.ask(what=What.LOOK).verdict is Verdict.WAITING
        limits.now += 60
        assert limits.ask(what=What.LOOK).verdict is Verdict.GRANTED
        assert limits.known() == before


class TestTokensTakenAhead:
    def test_leave_a_bucket_as_if_they_were_taken_at_the_start(self) -> None:
        """A full bucket does not fill again before the start: what flows over until then is nobody's."""
        limits = Limits(a_bucket(1, step=1), a_bucket(5, step=0.1))
        limits.take_alone(0)
        decision = limits.ask(accept=US)
        assert (decision.verdict, decision.wait / US) == (Verdict.GRANTED, 1)
        limits.now += 1
        assert limits.levels(1)[1] == 4

    def test_are_not_taken_for_a_start_that_is_further_away(self) -> None:
        limits = Limits(a_bucket(1, step=1), a_bucket(5))
        limits.take_alone(0)
        assert limits.ask(accept=0.9 * US).verdict is Verdict.WAITING
        assert limits.levels(1) == (5, 5)

    def test_come_to_one_who_is_late_at_its_turn_before_those_with_later_ones(self) -> None:
        limits = Limits(a_bucket(1), a_semaphore())
        limits.take_alone(0)
        late = limits.ask().given[0]
        limits.now += 1
        limits.enter_alone(1, "other")
        place = limits.ask(late, 0.0, asker="late").given[1]
        limits.now += 0.5
        forged = bucket.Request(bucket.What.COME_BACK, 1.0, turn=1.0)
        assert limits.limits[0].ask(limits.now * US, forged).verdict is bucket.Verdict.GRANTED
        limits.leave(1, "other")
        decision = limits.ask(late, place, asker="late", accept=US)
        assert (decision.verdict, decision.wait / US) == (Verdict.GRANTED, 0.5)


class TestSlots:
    def test_are_not_taken_while_tokens_are_short(self) -> None:
        limits = Limits(a_bucket(1), a_semaphore())
        limits.take_alone(0)
        limits.ask()
        assert limits.enter_alone(1, "other").standing is semaphore.Standing.HOLDING

    def test_that_are_handed_over_too_early_go_to_the_next_in_the_same_decision(self) -> None:
        limits = Limits(a_bucket(1, step=60), a_semaphore())
        limits.enter_alone(1, "holder")
        decision = limits.ask(asker="early")
        assert decision.which == 1
        limits.enter_alone(1, "next")
        limits.take_alone(0)
        limits.leave(1, "holder")
        assert list(limits.limits[1].state.leases) == ["early"]
        decision = limits.ask(0.0, decision.given[1], asker="early")
        assert decision.which == 0
        assert list(limits.limits[1].state.leases) == ["next"]

    def test_go_to_who_was_handed_one_and_has_all_else(self) -> None:
        limits = Limits(a_bucket(1), a_semaphore())
        limits.enter_alone(1, "holder")
        place = limits.ask(asker="waits").given[1]
        limits.leave(1, "holder")
        assert limits.ask(0.0, place, asker="waits").verdict is Verdict.GRANTED

    def test_come_in_the_order_of_arrival_to_who_went_to_wait_elsewhere(self) -> None:
        limits = Limits(a_bucket(1), a_semaphore())
        limits.enter_alone(1, "holder")
        place = limits.ask(asker="first").given[1]
        limits.enter_alone(1, "second")
        limits.take_alone(0)
        limits.leave(1, "holder")
        limits.ask(0.0, place, asker="first")  # gives the slot back, and waits for a token
        limits.now += 1
        decision = limits.ask(1.0, place, asker="first")
        assert (decision.which, decision.given[1]) == (1, place)
        limits.enter_alone(1, "third")
        limits.leave(1, "second")
        assert list(limits.limits[1].state.leases) == ["first"]


class TestWhatIsChangedWhileTheyRun:
    def test_a_closed_bucket_is_waited_for_and_its_turns_come_after_it_reopens(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.limits[0].change(limits.now * US, Change(Kind.CLOSE_FOR, (10 * US,)))
        waits = [limits.ask().wait / US for _ in range(3)]
        assert waits == [pytest.approx(10), pytest.approx(11), pytest.approx(12)]
        assert limits.levels(1) == (5, 5)

    def test_a_turn_that_was_booked_moves_when_its_bucket_is_closed(self) -> None:
        limits = Limits(a_bucket(1), a_bucket(5))
        limits.take_alone(0)
        turn = limits.ask().given[0]
        limits.limits[0].change(limits.now * US, Change(Kind.CLOSE_FOR, (10 * US,)))
        limits.now += 1
        decision = limits.ask(turn, 0.0)
        assert (decision.verdict, decision.wait / US) == (Verdict.WAITING, pytest.approx(10))
        limits.now += 10
        assert limits.ask(turn, 0.0).verdict is Verdict.GRANTED

    def test_a_closed_semaphore_is_waited_for_in_line_or_refuses_where_that_is_in_vain(self) -> None:
        limits = Limits(a_bucket(5), a_semaphore())
        limits.limits[1].change(limits.now * US, Change(Kind.CLOSE_FOR, (10 * US,)))
        refused = limits.ask(horizon=9 * US)
        assert (refused.verdict, refused.which) == (Verdict.REFUSED, 1)
        assert not limits.limits[1].state.listening
        waits = limits.ask(asker="waits", horizon=11 * US)
        assert (waits.verdict, waits.which, waits.wait / US) == (Verdict.WAITING, 1, pytest.approx(10))
        limits.now += 10
        assert limits.ask(0.0, waits.given[1], asker="waits").verdict is Verdict.GRANTED

    def test_slots_beyond_an_overridden_capacity_are_not_given(self) -> None:
        limits = Limits(a_bucket(5), a_semaphore(3))
        limits.limits[1].change(limits.now * US, Change(Kind.OVERRIDE, (1.0,)))
        assert limits.ask().verdict is Verdict.GRANTED
        assert limits.ask().verdict is Verdict.WAITING

    def test_a_cost_above_a_lowered_capacity_is_told_apart(self) -> None:
        limits = Limits(a_bucket(5), a_bucket(5))
        limits.limits[1].change(limits.now * US, Change(Kind.OVERRIDE, (2.0, 1.0, US, -1.0, 1.0)))
        decision = limits.ask(cost=3)
        assert (decision.verdict, decision.which) == (Verdict.TOO_MUCH, 1)
        assert limits.levels(0) == (5, 5)
