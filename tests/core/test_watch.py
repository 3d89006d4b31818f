"""Which tickets are renewed when, and what becomes of them where they can't be."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from itertools import count
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from support.buckets import THREADS, call
from support.semaphores import fresh_name, until
from support.servers import Server

from steindamm import AsyncSemaphore, LimiterUnavailableError, SyncSemaphore
from steindamm.backends.redis import watch
from steindamm.backends.redis.watch import AGAIN, EARLY, MOST, SyncWatch, Watched, say_not_renewed
from steindamm.tickets import Ticket

NOW = 100.0


@pytest.fixture
def at_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "monotonic", lambda: NOW)


def ticket(*, due: float = NOW, good_until: float = NOW, fence: int = 0, gone: bool = False) -> Ticket:
    ticket = Ticket("api", lambda: None)
    ticket.due, ticket.good_until, ticket.fence, ticket.gone = due, good_until, fence, gone
    return ticket


def watched(*tickets: Ticket, by: object = "api") -> Watched[Any]:
    watched: Watched[Any] = Watched()
    for each in tickets:
        watched.add(each, by)
    return watched


# When


def test_the_first_that_is_due_says_when() -> None:
    assert watched(ticket(due=7), ticket(due=5), ticket(due=6)).next_due() == 5
    assert watched().next_due() == float("inf")
    assert not watched()
    assert watched(ticket())


@pytest.mark.usefixtures("at_a_moment")
def test_those_that_are_due_soon_are_renewed_together_each_by_its_semaphore() -> None:
    now, soon, later = ticket(due=NOW), ticket(due=NOW + EARLY), ticket(due=NOW + 2 * EARLY)
    both = watched(now, soon, later, by="one")
    elsewhere = ticket(due=NOW - 1)
    both.add(elsewhere, "another")
    assert both.due() == {"one": [now, soon], "another": [elsewhere]}


def test_those_who_wait_are_hurried_and_holders_are_not() -> None:
    waits, holds = ticket(due=NOW + 9), ticket(due=NOW + 9, fence=3)
    watched(waits, holds).hurry()
    assert (waits.due, holds.due) == (0.0, NOW + 9)


def test_beyond_a_number_of_tickets_nothing_more_is_given_back() -> None:
    many = watched(*(ticket() for _ in range(MOST)), by="one")
    held, gone = ticket(due=1), ticket(due=1, gone=True)
    many.add(gone, "one")
    assert many.next_due() == NOW
    many.add(held, "one")
    assert many.next_due() == 1
    many.remove(held)
    many.remove(held)
    many.remove(next(iter(many._semaphores)))
    many.add(gone, "one")
    assert many.next_due() == 1


# Where the server does not answer


@pytest.mark.usefixtures("at_a_moment")
def test_all_are_tried_again_soon() -> None:
    tickets = [ticket(good_until=NOW, gone=gone, fence=fence) for gone in (False, True) for fence in (0, 5)]
    kept = watched(*tickets)
    assert kept.failed(SimpleNamespace(name="api"), tickets) == []
    assert [each.due for each in tickets] == [NOW + AGAIN] * 4
    assert not any(each.over for each in tickets)
    assert len(kept._semaphores) == 4


@pytest.mark.usefixtures("at_a_moment")
def test_after_its_time_a_holder_is_told_a_place_lapses_and_what_nobody_uses_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    holder, waits = ticket(good_until=NOW - 1, fence=5), ticket(good_until=NOW - 1)
    gone, gone_holder = ticket(good_until=NOW - 1, gone=True), ticket(good_until=NOW - 1, gone=True, fence=6)
    tickets = [gone, gone_holder, holder, waits]
    kept = watched(*tickets)
    with caplog.at_level(logging.WARNING, "steindamm"):
        for _ in range(2):
            assert kept.failed(SimpleNamespace(name="api"), tickets) == [waits]
    assert caplog.messages == [f"limiter 'api': the lease of slot {holder.id} ran out before it could be renewed"]
    assert (holder.over, waits.over) == (True, False)
    assert list(kept._semaphores) == [holder, waits]


@pytest.mark.parametrize(
    ("error", "level"), [(LimiterUnavailableError("api", "TimeoutError"), "DEBUG"), (ValueError("a defect"), "ERROR")]
)
def test_an_error_that_is_no_outage_is_told_loudly(
    caplog: pytest.LogCaptureFixture, error: Exception, level: str
) -> None:
    with caplog.at_level(logging.DEBUG, "steindamm"):
        say_not_renewed("api", error)
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == (level, "limiter 'api': nothing is renewed for now")
    assert record.exc_info is not None
    assert record.exc_info[1] is error


# Who renews


@pytest.mark.parametrize("kind", [SyncSemaphore, AsyncSemaphore])
async def test_whoever_renews_ends_when_nothing_is_held_and_begins_again(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(watch, "IDLE", 0.05)
    semaphore = kind(fresh_name(), capacity=1, expiry=0.9, connection=valkey.url)

    def is_idle() -> bool:
        watching = semaphore._backend.link.watch
        return watching._thread is None if kind is SyncSemaphore else watching._task.done()

    for _ in range(2):
        permit = await call(semaphore.acquire)
        good_until = permit.good_until
        await until(lambda permit=permit, good_until=good_until: permit.good_until > good_until)
        await call(semaphore.release, permit)
        await until(is_idle)


@pytest.mark.parametrize("change", ["add", "remove", "hurry"])
def test_whoever_is_interrupted_while_it_changes_the_watch_leaves_it_open(change: str) -> None:
    """At the beginning and the end of each function that it calls, as by a signal or a time limit."""
    args = {"add": (ticket(due=NOW * 1e9), None), "remove": (ticket(),), "hurry": ()}[change]
    for step in count():
        watch = SyncWatch()
        watch._thread = threading.current_thread()
        was_interrupted = interrupted_at(step, getattr(watch, change), *args)
        assert THREADS.submit(watch._lock.acquire, timeout=0).result()
        if not was_interrupted:
            break
    assert step > 2


def interrupted_at(step: int, call: Callable[..., object], *args: object) -> bool:
    """Make a call that is interrupted at its step; whether it came so far."""
    steps = count()

    def interrupt(_: FrameType, event: str, __: object) -> Any:
        if event != "line" and next(steps) == step:
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    sys.settrace(interrupt)
    try:
        call(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False
