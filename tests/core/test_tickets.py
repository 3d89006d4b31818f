"""A ticket changes hands between threads: whoever tells it first that it has a slot makes it a holder, once."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from support.children import ends_well_in_a_child

from steindamm import SlotPermit
from steindamm.backends.redis.hearing import Hearers
from steindamm.backends.redis.subscriptions import Message
from steindamm.tickets import Ticket


class Woken:
    """Counts how often it was woken."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_it_holds_nothing_at_first() -> None:
    ticket = Ticket("name")
    assert (ticket.fence, ticket.number, ticket.waited, ticket.lost) == (0, 0, 0, False)


def test_it_is_the_permit() -> None:
    ticket = Ticket("name")
    ticket.take(7)
    assert isinstance(ticket, SlotPermit)
    assert (ticket.name, ticket.cost, ticket.fence, repr(ticket)) == ("name", 1.0, 7, "<SlotPermit of 'name'>")


def test_what_it_is_told_by_the_reply_wakes_nobody() -> None:
    ticket = Ticket("name", woken := Woken())
    assert ticket.take(7)
    assert not ticket.hand(8)
    assert (woken.times, ticket.woken, ticket.fence) == (0, False, 7)


def test_a_hand_over_wakes_once() -> None:
    ticket = Ticket("name", woken := Woken())
    assert ticket.hand(7)
    assert not ticket.hand(8)
    assert not ticket.take(9)
    assert (woken.times, ticket.woken, ticket.fence) == (1, True, 7)


def test_many_threads_that_hand_it_a_slot_wake_once() -> None:
    """A lock that is released twice is an error, in a thread where nobody looks."""
    for _ in range(50):
        lock = threading.Lock()
        lock.acquire()
        ticket, start, told = Ticket("name", lock.release), threading.Barrier(4), []

        def hand(ticket: Ticket = ticket, start: threading.Barrier = start, told: list[bool] = told) -> None:
            start.wait()
            told.append(ticket.hand(7))

        threads = [threading.Thread(target=hand) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == [False, False, False, True]
        assert not ticket.gone


def test_one_that_has_gone_is_handed_nothing() -> None:
    ticket = Ticket("name", woken := Woken())
    ticket.gone = True
    assert not ticket.hand(7)
    assert (woken.times, ticket.fence) == (0, 0)


def test_a_hand_over_that_comes_later_than_the_slot_lasts_is_none() -> None:
    ticket = Ticket("name", woken := Woken())
    ticket.keep(time.monotonic() - 10, 9.9)
    assert not ticket.hand(7)
    assert (woken.times, ticket.fence, ticket.gone) == (0, 0, False)


def test_one_that_cannot_be_woken_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    ticket = Ticket("name", fail)
    assert not ticket.hand(7)
    assert ticket.gone
    assert ticket.due == 0
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "a waiter could not be woken (ZeroDivisionError); its slot goes to the next")
    ]


def test_it_is_renewed_every_third_of_what_it_lasts() -> None:
    ticket = Ticket("name")
    ticket.keep(100.0, 60.0)
    assert (ticket.due, ticket.good_until) == (120.0, 160.0)


def test_it_is_lost_when_its_time_is_over_unless_it_was_given_back() -> None:
    ticket = Ticket("name")
    ticket.take(7)
    ticket.keep(time.monotonic() - 10, 9.9)
    assert ticket.lost
    ticket.gone = True
    assert not ticket.lost


def test_it_is_in_line_with_its_number_only_while_it_waits() -> None:
    ticket = Ticket("name", Woken())
    ticket.number = 5.0
    assert ticket.place == 5.0
    ticket.hand(7)
    assert ticket.place == 0
    other = Ticket("name")
    other.number, other.gone = 5.0, True
    assert other.place == 0


def test_the_time_that_it_waited_counts_from_when_it_was_made() -> None:
    ticket = Ticket("name", Woken())
    time.sleep(0.01)
    ticket.hand(7)
    assert 0.01 <= ticket.waited < 5


def test_each_has_an_id_of_its_own_that_tells_the_process() -> None:
    ids = {Ticket("name").id for _ in range(100)}
    assert len(ids) == 100
    assert len({ticket_id.split(":")[0] for ticket_id in ids}) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_another_name_and_does_not_own_it() -> None:
    ticket = Ticket("name")

    def look() -> None:
        assert not ticket.is_ours
        assert ticket.lost
        assert Ticket("name").process != ticket.process

    assert ends_well_in_a_child(look)
    assert ticket.is_ours
    assert not ticket.lost


class Told:
    """Stands where the watch of a link stands, and counts how often it is told to hurry."""

    def __init__(self) -> None:
        self.times = 0
        self.watch = self

    def hurry(self) -> None:
        self.times += 1


@pytest.mark.parametrize("lapsed", [False, True])
def test_one_whose_place_had_lapsed_asks_before_it_believes_a_hand_over(lapsed: bool) -> None:
    """A process that was stopped may renew its place first, and hear then of a slot that went to another meanwhile."""
    woken, link = Woken(), Told()
    ticket = Ticket("name", woken)
    now = time.monotonic()
    ticket.keep(now - 10, 9 if lapsed else 60)
    ticket.keep_place(now, 60)
    hearers = Hearers()
    hearers._link = link
    hearers.tickets[ticket.id] = ticket
    hearers._hear(Message("message", f"{ticket.id} 7"))
    assert bool(ticket.fence) is not lapsed
    assert link.times == int(lapsed)
    if lapsed:
        assert ticket.hand(8)  # what the server says in reply is true
