"""What a process keeps of its tickets at a semaphore on a server, how it renews them, and what it says of them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from time import monotonic

import pytest
import redis
from support.buckets import call
from support.semaphores import fresh_name, until
from support.servers import HOST, Server

from steindamm import LimiterUnavailableError, MaxSleepExceededError, SyncSemaphore
from steindamm.backends.redis.semaphore import UNUSED, SyncRedisSemaphore
from steindamm.rules.semaphore import Place, Request, Standing, Stay, What
from steindamm.tickets import Ticket

LEASE = 30.0
CLOSED = 0.5


class Kept:
    """A semaphore of one slot, by a client of its own, and what is kept of its tickets."""

    def __init__(self, client: redis.Redis, max_sleep: float = 0) -> None:
        self.semaphore = SyncSemaphore(fresh_name(), capacity=1, expiry=LEASE, max_sleep=max_sleep, connection=client)
        self.backend: SyncRedisSemaphore = self.semaphore._backend
        self._link = self.backend.link

    def ticket(self, *, fence: int = 0, number: float = 0.0, gone: bool = False) -> Ticket:
        """One that has a slot, or waits, or has gone; it is renewed, and hears of hand-overs where it waits."""
        ticket = Ticket(self.semaphore.name, lambda: None)
        if fence:
            ticket.take(fence)
        else:
            self._link.hearing.tickets[ticket.id] = ticket
        ticket.number, ticket.gone = number, gone
        ticket.keep(monotonic(), LEASE)
        self._link.watch.add(ticket, self.backend)
        return ticket

    def place(self, standing: Standing, number: float = 7.0, closed: float = 0.0) -> Place:
        return Place(standing, number, 0.0, closed * 1e6)

    @property
    def is_renewed(self) -> list[Ticket]:
        return list(self._link.watch._watched._semaphores)

    @property
    def hears(self) -> list[Ticket]:
        return list(self._link.hearing.tickets.values())


@pytest.fixture
def kept(valkey: Server) -> Iterator[Kept]:
    with redis.Redis(HOST, valkey.port) as client:
        kept = Kept(client)
        yield kept
        for ticket in kept.is_renewed:
            kept.backend.forget(ticket)


# From an acquire to its end


async def test_a_holder_is_renewed_and_hears_of_nothing_and_then_nothing_is_kept(kept: Kept) -> None:
    permit = await call(kept.semaphore.acquire)
    assert (kept.is_renewed, kept.hears) == ([permit], [])
    waiting = asyncio.create_task(call(kept.semaphore.acquire))
    await until(lambda: len(kept.is_renewed) == 2)
    assert len(kept.hears) == 1
    await call(kept.semaphore.release, permit)
    permit = await waiting
    assert (kept.is_renewed, kept.hears) == ([permit], [])
    await call(kept.semaphore.release, permit)
    assert (kept.is_renewed, kept.hears) == ([], [])


async def test_nothing_is_kept_of_one_that_gave_up(valkey: Server) -> None:
    client = redis.Redis(HOST, valkey.port)
    kept = Kept(client, max_sleep=0.05)
    permit = await call(kept.semaphore.acquire)
    with pytest.raises(MaxSleepExceededError):
        await call(kept.semaphore.acquire)
    assert (kept.is_renewed, kept.hears) == ([permit], [])
    await call(kept.semaphore.release, permit)
    client.close()


# What the server's answers mean


def test_one_that_is_let_in_holds_and_one_that_waits_hears(kept: Kept) -> None:
    held, waits, left = (Ticket(kept.semaphore.name, lambda: None) for _ in range(3))
    for ticket in (held, waits):
        kept.backend.entering(ticket, Stay.LISTENING)
    kept.backend.entered(held, kept.place(Standing.HOLDING), Stay.LISTENING, monotonic())
    kept.backend.entered(waits, kept.place(Standing.WAITING), Stay.LISTENING, monotonic())
    kept.backend.entered(left, kept.place(Standing.WAITING), Stay.AWAY, monotonic())
    assert (held.fence, waits.fence, waits.number) == (7, 0, 7.0)
    assert set(kept.is_renewed) == {held, waits}
    assert kept.hears == [waits]
    kept.backend.forget_place(waits)
    assert (kept.is_renewed, kept.hears) == ([held], [])
    kept.backend.forget_place(waits)
    assert not waits.gone


@pytest.mark.parametrize("renewed", [False, True])
def test_one_that_waits_at_a_semaphore_that_is_closed_asks_when_it_opens(kept: Kept, renewed: bool) -> None:
    ticket, place = kept.ticket(), kept.place(Standing.WAITING, closed=CLOSED)
    if renewed:
        kept.backend._stands(ticket, place, monotonic())
    else:
        kept.backend.entered(ticket, place, Stay.LISTENING, monotonic())
    assert 0 < ticket.due <= monotonic() + CLOSED


@pytest.mark.parametrize("renewed", [False, True])
async def test_one_that_waits_is_asked_again_where_its_answer_was_overtaken_by_news(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, renewed: bool
) -> None:
    asked_again: list[Ticket] = []

    def renew(tickets: list[Ticket]) -> None:
        asked_again.extend(tickets)
        for ticket in tickets:
            ticket.due = math.inf

    def answered(asked_at: float) -> Ticket:
        ticket, place = kept.ticket(), kept.place(Standing.WAITING)
        if renewed:
            kept.backend._stands(ticket, place, asked_at)
        else:
            kept.backend.entered(ticket, place, Stay.LISTENING, asked_at)
        return ticket

    link = kept.backend.link
    monkeypatch.setattr(kept.backend, "renew", renew)
    monkeypatch.setattr(link.hearing, "listen", lambda: None)  # which is news by itself
    before = monotonic()
    link.watch.hurry()
    after = answered(monotonic())
    overtaken = answered(before)
    await until(lambda: overtaken in asked_again)
    assert after.due > monotonic()
    assert after not in asked_again


def test_only_a_slot_can_come_too_late(kept: Kept) -> None:
    long_ago = monotonic() - LEASE - 0.1
    assert kept.backend.is_late(kept.place(Standing.HOLDING), long_ago)
    assert not kept.backend.is_late(kept.place(Standing.HOLDING), monotonic() - LEASE + 10)
    assert not kept.backend.is_late(kept.place(Standing.WAITING), long_ago)


# Renewing


def test_holders_are_renewed_by_their_lease_and_those_who_wait_by_their_place_in_its_order(kept: Kept) -> None:
    last, first, holder, gone = (
        kept.ticket(number=9.0), kept.ticket(number=8.0), kept.ticket(fence=5), kept.ticket(gone=True),
    )  # fmt: skip
    requests = kept.backend._renewing([last, first, holder, gone])
    told = [(request.what, request.asker, request.number) for request in requests]
    assert told[:2] in ([renewal_of(holder), leave_of(gone)], [leave_of(gone), renewal_of(holder)])
    assert told[2:] == [(What.RENEW, first, 8.0), (What.RENEW, last, 9.0)]


def renewal_of(holder: Ticket) -> tuple[What, Ticket, float]:
    return What.RENEW, holder, -float(holder.fence)


def leave_of(gone: Ticket) -> tuple[What, Ticket, float]:
    return What.LEAVE, gone, UNUSED


def test_what_has_been_given_back_is_renewed_no_more_and_the_others_are_told(kept: Kept) -> None:
    gone, waits = kept.ticket(gone=True), kept.ticket(number=8.0)
    requests = kept.backend._renewing([gone, waits])
    places = [kept.place(Standing.OUT), kept.place(Standing.HOLDING)]
    assert kept.backend._renewed(requests, places, monotonic()) == []
    assert (waits.fence, waits.woken) == (7, True)
    assert (kept.is_renewed, kept.hears) == ([waits], [gone])


def test_a_renewal_that_came_too_late_is_taken_back(kept: Kept) -> None:
    returned, out = kept.ticket(number=8.0), kept.ticket(number=9.0)
    requests = kept.backend._renewing([returned, out])
    returned.gone = out.gone = True
    places = [kept.place(Standing.WAITING), kept.place(Standing.OUT)]
    assert kept.backend._renewed(requests, places, monotonic()) == [returned]
    assert out not in kept.is_renewed


def test_a_hundred_are_renewed_in_one_call(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def renewed(requests: list[Request]) -> list[Place]:
        calls.append(len(requests))
        return [kept.place(Standing.HOLDING)] * len(requests)

    monkeypatch.setattr(kept.backend, "_call", renewed)
    kept.backend.renew([kept.ticket(fence=7) for _ in range(250)])
    assert calls == [100, 100, 50]


def test_a_holder_whose_lease_is_gone_is_told_and_nobody_else(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    holder, waits, gone = kept.ticket(fence=5), kept.ticket(number=8.0), kept.ticket(fence=6, gone=True)
    with caplog.at_level(logging.WARNING, "steindamm"):
        for ticket in (holder, waits, gone):
            kept.backend._stands(ticket, kept.place(Standing.OUT), monotonic())
    name = kept.semaphore.name
    assert caplog.messages == [f"limiter '{name}': the lease of slot {holder.id} ran out before it could be renewed"]
    assert holder.lost
    assert kept.is_renewed == []


# Leaving


def test_only_a_slot_that_was_used_tells_how_long_it_is_held(kept: Kept) -> None:
    for fence, used, tells in ((5, True, True), (5, False, False), (0, True, False), (0, False, False)):
        request = kept.backend._leaving(kept.ticket(fence=fence), used=used)
        assert request.what is What.LEAVE
        assert (request.number != UNUSED) is tells
    assert (kept.is_renewed, kept.hears) == ([], [])


def test_what_can_not_be_given_back_now_is_said_and_given_back_later(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    ticket = kept.ticket(fence=5)
    with caplog.at_level(logging.WARNING, "steindamm"):
        kept.backend.not_left(ticket, LimiterUnavailableError(kept.semaphore.name, "TimeoutError"))
    name = kept.semaphore.name
    error = f"limiter '{name}': its backend is unavailable (TimeoutError)"
    assert caplog.messages == [f"limiter '{name}': slot {ticket.id} is not given back for now: {error}"]
    assert ticket.gone
