"""Asking in a thread of its own: the loop gets answers that are there soon, and hears of all others later."""

from __future__ import annotations

import gc
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
import redis
from support.celery_workers import until

from steindamm import LimiterUnavailableError, SyncTokenBucket
from steindamm.integrations.bookings import Booking
from steindamm.integrations.celery.asking import IDLE, Asker, Askers
from steindamm.integrations.celery.waker import Waker
from steindamm.integrations.decisions import Decision, Defer, Fail, Unavailable

YES = Defer(0.0, Booking())
NO_ANSWER = Unavailable(0.5, Booking(), error=LimiterUnavailableError("limiter"))


class Asked:
    """A question whose answer the test decides on."""

    def __init__(self, answer: Callable[[], Decision] = lambda: YES, *, is_wanted: bool = True) -> None:
        self.answer = answer
        self.is_wanted = is_wanted
        self.times = 0
        self.heard: list[Decision] = []

    def ask(self) -> Decision:
        self.times += 1
        return self.answer()

    def answered(self, decision: Decision) -> None:
        self.heard.append(decision)


@pytest.fixture
def asker() -> Asker:
    return Asker(Waker())


def after(event: Event) -> Callable[[], Decision]:
    def answer() -> Decision:
        event.wait(10)
        return YES

    return answer


def failing(times: int) -> Callable[[], Decision]:
    answers = iter([NO_ANSWER] * times)
    return lambda: next(answers, YES)


def test_an_answer_that_is_there_soon_is_returned_and_told_to_nobody_else(asker: Asker) -> None:
    asked = Asked()
    assert asker.ask(asked) is YES
    assert (asked.times, asked.heard) == (1, [])


def test_who_asks_does_not_wait_for_a_late_answer_and_hears_of_it(asker: Asker) -> None:
    there = Event()
    late, behind = Asked(after(there)), Asked()
    assert asker.ask(late) is None
    assert asker.ask(behind) is None
    assert late.heard == behind.heard == []
    there.set()
    until(lambda: late.heard == behind.heard == [YES])
    until(lambda: asker.ask(Asked()) is YES)


def test_what_failed_is_asked_again_until_there_is_an_answer(asker: Asker) -> None:
    asked = Asked(failing(3))
    assert asker.ask(asked) is None
    until(lambda: asked.heard == [YES])
    assert asked.times == 4


def test_a_limiter_that_keeps_failing_does_not_keep_others_from_their_answers(asker: Asker) -> None:
    broken = [Asked(failing(10_000)) for _ in range(50)]
    others = [Asked() for _ in range(50)]
    for one, other in zip(broken, others, strict=True):
        assert asker.ask(one) is None
        asker.ask(other)
    until(lambda: all(other.times for other in others))
    assert all(one.heard == [] for one in broken)


def test_questions_that_nobody_waits_for_any_more_are_dropped(asker: Asker) -> None:
    asked = Asked(failing(1), is_wanted=False)
    assert asker.ask(asked) is None
    calls: list[int] = []
    asker.tell(lambda: calls.append(1))
    until(lambda: calls)
    until(lambda: asker.ask(Asked()) is YES)
    assert (asked.times, asked.heard) == (1, [])


def test_an_error_is_an_answer(asker: Asker) -> None:
    def raises() -> Decision:
        raise LookupError("no such thing")

    decision = asker.ask(Asked(raises))
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, LookupError)


def test_calls_are_made_in_their_order_and_can_be_waited_for(asker: Asker) -> None:
    made: list[Any] = []
    for number in range(100):
        asker.tell(lambda number=number: made.append(number))
    asker.tell(lambda: made.index("nothing"))
    asker.finish(10)
    assert made == list(range(100))


def test_who_asks_a_server_ends_with_the_last_limiter_of_its_client() -> None:
    """A function that makes a client for each job would else leave a thread behind for each."""
    askers = Askers(Waker())

    def asked() -> Thread:
        limiter = SyncTokenBucket("asked about", connection=redis.Redis())
        asker = askers.of(limiter)
        assert asker.ask(Asked()) is YES
        return asker._thread

    thread = asked()
    gc.collect()
    thread.join(IDLE / 3)
    assert not thread.is_alive()
