"""The checker is right about what is right, and finds what is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import checker
from chaos.history import Execution, History
from chaos.journal import Event, Journal


def over_by_looking_at_every_window(starts: list[float], capacity: float, rate: float) -> float:
    times = sorted(starts)
    excesses = [
        last - first + 1 - capacity - rate * (times[last] - times[first])
        for first in range(len(times))
        for last in range(first, len(times))
    ]
    return max(0.0, *excesses)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.floats(0.5, 5), st.floats(0.1, 20))
def test_the_fullest_of_all_windows_is_found(starts: list[float], capacity: float, rate: float) -> None:
    expected = over_by_looking_at_every_window(starts, capacity, rate)
    assert checker.starts_over_limit(starts, capacity, rate) == pytest.approx(expected, abs=1e-6)


def test_a_bucket_that_is_used_to_the_full_is_within_its_limit() -> None:
    starts = [0.0] * 10 + [n * 0.1 for n in range(1, 200)]
    assert checker.starts_over_limit(starts, capacity=10, rate=10) == pytest.approx(0)
    assert checker.starts_over_limit([*starts, 5.0], capacity=10, rate=10) == pytest.approx(1)


def test_starts_that_may_be_late_bunch_up_by_so_much() -> None:
    starts = [n * 0.1 for n in range(50)] + [5.4] * 5 + [5.5 + n * 0.1 for n in range(50)]
    assert checker.starts_over_limit(starts, capacity=1, rate=10) == pytest.approx(4)
    assert checker.starts_over_limit(starts, capacity=1, rate=10, late=0.4) == pytest.approx(0)


def hold(start: float, end: float | None) -> Execution:
    return Execution(start, "slot", 1, end, "end")


def test_a_slot_too_many_is_found_whenever_it_is_held() -> None:
    one_after_the_other = [hold(n, n + 1) for n in range(10)] * 2
    assert checker.slots_over_limit(one_after_the_other, 2) == 0
    assert checker.slots_over_limit([*one_after_the_other, hold(4.2, 4.3)], 2) == 1
    assert checker.slots_over_limit([*one_after_the_other, hold(4.2, None), hold(9.5, 9.6)], 2) == 2


def event(at: float, what: str, who: str = "job", pid: int = 1) -> Event:
    return Event(at, what, who, pid, "")


def repeats(*events: Event) -> tuple[int, int]:
    history = History(events)
    explained, ours = checker.repeated(history.executions(), history)
    return len(explained), len(ours)


def test_a_job_that_runs_twice_is_our_doing() -> None:
    assert repeats(event(0, "start"), event(1, "end"), event(5, "start", pid=2), event(6, "end", pid=2)) == (0, 1)
    assert repeats(event(0, "start"), event(1, "end"), event(5, "start"), event(6, "end"), event(9, "killed")) == (0, 1)


def test_unless_it_was_cut_or_its_process_killed_before_it_could_say_that_it_is_done() -> None:
    again = event(5, "start", pid=2), event(6, "end", pid=2)
    assert repeats(event(0, "start"), event(1, "killed", ""), *again) == (1, 0)
    assert repeats(event(0, "start"), event(1, "cut"), *again) == (1, 0)
    assert repeats(event(0, "start"), event(1, "end"), event(1.5, "killed", ""), *again) == (1, 0)
    assert repeats(event(0, "start"), event(1, "end"), event(4, "killed", ""), *again) == (0, 1)
    assert repeats(event(0, "start"), event(1, "end"), event(4, "ended", ""), *again) == (1, 0)


def test_or_its_queue_gave_up_a_worker_that_stood_still() -> None:
    again = event(5, "start", pid=2), event(6, "end", pid=2)
    assert repeats(event(0, "taken"), event(1, "stopped", ""), *again, event(7, "start"), event(8, "end")) == (1, 0)
    assert repeats(event(0, "start"), event(1, "end"), event(9, "stopped", ""), *again) == (0, 1)


def test_a_job_that_never_ends_is_lost() -> None:
    history = History([event(0, "start", "a"), event(1, "end", "a"), event(1, "start", "b"), event(2, "killed", "")])
    assert checker.lost(["a", "b", "c"], history.executions()) == {"b", "c"}


def test_a_job_that_nobody_ever_had_was_lost_by_the_queue_if_a_worker_was_killed() -> None:
    taken, killed = event(0, "taken", "a"), event(1, "killed", "")
    assert checker.swallowed(["a", "b"], History([taken, killed])) == {"b"}
    assert checker.swallowed(["a", "b"], History([taken])) == set()


def test_so_was_one_that_a_worker_had_sent_back_and_nobody_got_after_the_kill() -> None:
    sent, killed, taken = event(0, "sent", "a"), event(1, "killed", ""), event(2, "taken", "a")
    assert checker.swallowed(["a"], History([sent, killed])) == {"a"}
    assert checker.swallowed(["a"], History([sent, killed, taken])) == set()
    assert checker.swallowed(["a"], History([killed, sent._replace(at=2)])) == set()


def test_the_hold_of_one_who_was_stopped_until_its_lease_was_over_ended_with_the_stop() -> None:
    events = [event(0, "start"), event(1, "stopped", ""), event(5, "lost")]
    assert [run.end for run in History(events).executions()] == [1]
    assert [run.end for run in History([event(0, "start"), event(3, "killed", "")]).executions()] == [3]


def test_a_caller_that_starts_before_one_who_had_asked_earlier_has_overtaken_it() -> None:
    events = [event(n, "asks", f"job {n}") for n in range(4)]
    in_order = [event(10 + n, "start", f"job {n}") for n in range(4)]
    assert checker.overtaken(History([*events, *in_order]), "job", 0, late=0.1) == 0
    late = [event(10 + n, "start", f"job {(n + 1) % 4}") for n in range(4)]
    assert checker.overtaken(History([*events, *late]), "job", 0, late=0.1) == 1
    assert checker.overtaken(History([*events, *late]), "job", 0.5, late=0.1) == 0
    assert checker.overtaken(History([*events, *late]), "job", 0, late=5) == 0


def test_one_who_asks_and_hears_nothing_is_found() -> None:
    history = History([
        event(0, "asks", "a"), event(1, "start", "a"), event(0, "asks", "b"), event(1, "told", "b"),
        event(0, "asks", "c"), event(0, "asks", "d", 2), event(1, "killed", "", 2),
    ])  # fmt: skip
    assert checker.unanswered(history, "") == {"c"}


def test_recovery_is_over_when_the_usual_rate_is_back() -> None:
    steady = [n * 0.1 for n in range(100)]
    assert checker.recovery(steady, since=2.0, rate=10) == pytest.approx(0, abs=0.1)
    silent = [at for at in steady if not 2 < at < 5.05] + [3.0]
    assert checker.recovery(silent, since=2.0, rate=10) == pytest.approx(3.1, abs=0.05)
    assert checker.recovery([], since=2.0, rate=10) is None


def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in random.sample(range(100), 10):
        journal.write("told", f"rate {number}", "an error:\tof two\nlines")
    events = journal.events()
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert {event.more for event in events} == {"an error: of two lines"}
    assert len({event.who for event in events}) == 10
