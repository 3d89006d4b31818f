"""What a process hears on its channel, and for how long it listens."""

from __future__ import annotations

import asyncio
import logging
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from support.buckets import call
from support.gates import PATIENCE, AsyncGatedClient, GatedClient
from support.semaphores import fresh_name, until
from support.servers import Server

from steindamm import AsyncSemaphore, SyncSemaphore
from steindamm.backends import terms
from steindamm.backends.redis import hearing
from steindamm.backends.redis.hearing import IDLE, QUIET, Hearers
from steindamm.backends.redis.links import async_link, sync_link
from steindamm.backends.redis.subscriptions import read
from steindamm.rules.semaphore import What
from steindamm.tickets import Ticket

LONG = 100 * PATIENCE


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hearing, "monotonic", clock)
    return clock


class Ears(Hearers):
    """Hears, and counts how often the renewals were hurried."""

    def __init__(self) -> None:
        super().__init__()
        self.hurried = 0
        self._link = SimpleNamespace(watch=SimpleNamespace(hurry=self._hurry))

    def _hurry(self) -> None:
        self.hurried += 1

    def waiting(self, job: str | None = None) -> Ticket:
        ticket = Ticket("api", lambda: None, job)
        self.tickets[ticket.id] = ticket
        return ticket

    def hear(self, data: Any, kind: str = "message") -> None:
        self._hear(read([kind, "steindamm:process", data]))


@pytest.mark.parametrize("job", [None, "job 7 of 9"])
@pytest.mark.parametrize("as_sent", [str.encode, str], ids=["bytes", "text"])
def test_a_message_hands_a_slot_to_the_ticket_that_it_names(job: str | None, as_sent: Any) -> None:
    ears = Ears()
    ticket, other = ears.waiting(job), ears.waiting(job)
    ears.hear(as_sent(f"{ticket.id} 41"))
    assert (ticket.fence, ticket.woken, other.fence) == (41, True, 0)
    assert ears.tickets == {other.id: other}
    assert ears.hurried == 0


def test_a_message_without_a_slot_is_news_that_is_asked_for() -> None:
    ears = Ears()
    ticket = ears.waiting()
    ears.hear(f"{ticket.id} 0")
    assert (ticket.fence, ears.hurried, ears.tickets) == (0, 1, {ticket.id: ticket})


def test_a_ticket_that_doubts_what_it_hears_asks() -> None:
    ears = Ears()
    ticket = ears.waiting()
    ticket.doubts = True
    ears.hear(f"{ticket.id} 41")
    assert (ticket.fence, ears.hurried, ears.tickets) == (0, 1, {ticket.id: ticket})


@pytest.mark.parametrize("message", ["nobody 41", "nobody 0", "{} x", "{} -1", "{}", "", "{} 4.5", " "])
def test_any_other_message_is_nothing(message: str) -> None:
    ears = Ears()
    ticket = ears.waiting()
    ears.hear(message.format(ticket.id))
    ears.hear(f"{ticket.id} 41", kind="subscribe")
    assert (ticket.fence, ears.hurried, ears.tickets) == (0, 0, {ticket.id: ticket})


def test_that_nothing_is_heard_is_said_once_until_something_is(caplog: pytest.LogCaptureFixture) -> None:
    ears = Ears()
    with caplog.at_level(logging.WARNING, "steindamm"):
        for error in (ConnectionError("of host and password"), TimeoutError()):
            ears._complain(error)
        ears.hear(b"", kind="subscribe")
        ears._complain(TimeoutError())
    assert caplog.messages == [
        f"hand-overs are not heard for now: {kind}" for kind in ("ConnectionError", "TimeoutError")
    ]


def test_a_silent_server_is_asked_whether_it_is_there_and_given_up_in_the_end(clock: Clock) -> None:
    ears = Ears()
    clock.now += QUIET
    assert not ears._is_quiet()
    clock.now += 0.1
    assert ears._is_quiet()
    ears.hear(b"", kind="pong")
    assert not ears._is_quiet()
    clock.now += 2 * QUIET
    assert ears._is_quiet()
    clock.now += 0.1
    with pytest.raises(TimeoutError):
        ears._is_quiet()


def test_a_while_after_the_last_waiter_nobody_listens_any_more(clock: Clock) -> None:
    ears = Ears()
    ticket = ears.waiting()
    clock.now += 2 * IDLE
    assert not ears._is_idle()
    del ears.tickets[ticket.id]
    clock.now += IDLE
    assert not ears._is_idle()
    clock.now += 0.1
    assert ears._is_idle()


@pytest.mark.parametrize("kind", [SyncSemaphore, AsyncSemaphore])
async def test_it_is_listened_again_when_somebody_waits_again(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(hearing, "IDLE", 0.05)
    monkeypatch.setattr(hearing, "LISTEN", 0.02)
    semaphore = kind(fresh_name(), capacity=1, connection=f"{valkey.url}?client_name={kind.__name__}")

    def listeners() -> int:
        return sum(client["name"] == kind.__name__ and int(client["sub"]) > 0 for client in valkey.admin.client_list())

    for _ in range(3):
        permit = await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await until(lambda: listeners() == 1)
        await call(semaphore.release, permit)
        await call(semaphore.release, await waiting)
        await until(lambda: listeners() == 0)


@pytest.mark.parametrize("kind", [GatedClient, AsyncGatedClient])
async def test_who_is_answered_while_it_begins_to_listen_asks_for_what_it_has_missed(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(terms, "PRESENCE", LONG)
    client, asynchronous = kind.from_url(valkey.url), kind is AsyncGatedClient
    face = AsyncSemaphore if asynchronous else SyncSemaphore
    semaphore, other = (face(fresh_name(), capacity=1, expiry=LONG, connection=client) for _ in range(2))
    holder = SyncSemaphore(semaphore.name, capacity=1, expiry=LONG, connection=valkey.url)
    watch = (async_link if asynchronous else sync_link)(client).watch
    hurried, hurry = Event(), watch.hurry
    monkeypatch.setattr(watch, "hurry", lambda: (hurry(), hurried.set()))
    permit, others_permit = await call(holder.acquire), await call(other.acquire)

    reply = client.stop_at(What.ENTER, before=False)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await until(reply.reached.is_set)
    await call(holder.release, permit)
    others_waiting = asyncio.create_task(call(other.acquire))
    await until(hurried.is_set)
    reply.go.set()

    async with asyncio.timeout(PATIENCE):
        await call(semaphore.release, await waiting)
    await call(other.release, others_permit)
    await call(other.release, await others_waiting)
    await call(client.aclose if asynchronous else client.close)
