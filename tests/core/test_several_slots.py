"""Limits in several slots of a cluster: what one slot gave goes back where another, asked after it, does not grant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.buckets import call
from support.semaphores import fresh_name, until
from support.servers import Cluster

from steindamm import AsyncSemaphore, LimiterUnavailableError, SyncSemaphore, all_of


class Apart:
    """Two semaphores of one slot each, which lie apart, both of them at once, and another's view of each, by name.

    Attributes:
        asked_second: What decides on requests to the one that is asked last where all would grant.
        other_there: Another's view of that one.
    """

    def __init__(self, cluster: Cluster, kind: type[SyncSemaphore | AsyncSemaphore]) -> None:
        names = sorted([fresh_name(), fresh_name()])
        first, second = (kind(name, capacity=1, connection=cluster.url) for name in names)
        self.both: Any = all_of(first, second)
        self.others = [SyncSemaphore(name, capacity=1, connection=cluster.url) for name in names]
        self.asked_second: Any
        ((which,), self.asked_second), _ = self.both._backend._groups
        self.other_there = self.others[which]

    async def held(self) -> list[int]:
        return [(await call(other.state)).held for other in self.others]

    async def stands_at(self, index: int) -> None:
        """Wait until one stands in the line of a semaphore."""
        await until(lambda: self.others[index].state().waiters == 1)


@pytest.fixture(params=[SyncSemaphore, AsyncSemaphore], ids=["sync-cluster", "async-cluster"])
async def apart(request: pytest.FixtureRequest, cluster: Cluster) -> Apart:
    return Apart(cluster, request.param)


def before_asking(apart: Apart, monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Something happens after one slot has granted, and before the second is asked, once."""
    ask, done = apart.asked_second.ask, []

    def first_time() -> None:
        if not done:
            done.append(True)
            happens()

    def asked(request: Any) -> Any:
        first_time()
        return ask(request)

    async def asked_by_task(request: Any) -> Any:
        await asyncio.to_thread(first_time)
        return await ask(request)

    monkeypatch.setattr(apart.asked_second, "ask", asked_by_task if asyncio.iscoroutinefunction(ask) else asked)


async def test_one_that_is_beaten_to_a_slot_holds_nothing(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    before_asking(apart, monkeypatch, lambda: taken.append(apart.other_there.acquire()))
    assert await call(apart.both.try_acquire) is None
    assert sum(await apart.held()) == 1
    await call(apart.other_there.release, taken[0])
    await call(apart.both.release, await call(apart.both.acquire))
    assert await apart.held() == [0, 0]


async def test_one_that_is_beaten_and_waits_gets_all_in_the_end(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    before_asking(apart, monkeypatch, lambda: taken.append(apart.other_there.acquire()))
    waiting = asyncio.create_task(call(apart.both.acquire))
    await until(lambda: waiting.done() or (bool(taken) and apart.other_there.state().waiters == 1))
    assert not waiting.done(), waiting.exception()
    assert sum(await apart.held()) == 1
    await call(apart.other_there.release, taken[0])
    permit = await waiting
    assert await apart.held() == [1, 1]
    await call(apart.both.release, permit)
    assert await apart.held() == [0, 0]


async def test_an_error_of_the_second_gives_back_what_the_first_gave(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise LimiterUnavailableError("second")

    before_asking(apart, monkeypatch, fails)
    with pytest.raises(LimiterUnavailableError, match="second"):
        await call(apart.both.try_acquire)
    assert await apart.held() == [0, 0]


async def test_who_has_stood_in_both_lines_keeps_the_first_while_it_waits_for_the_second_again(apart: Apart) -> None:
    one, two = apart.others
    permit_of_two = await call(two.acquire)
    waiting = asyncio.create_task(call(apart.both.acquire))
    await apart.stands_at(1)
    permit_of_one = await call(one.acquire)
    await call(two.release, permit_of_two)
    await apart.stands_at(0)
    permit_of_two = await call(two.acquire)
    await call(one.release, permit_of_one)
    await apart.stands_at(1)
    assert await call(one.try_acquire) is None
    await call(two.release, permit_of_two)
    permit = await waiting
    assert await apart.held() == [1, 1]
    await call(apart.both.release, permit)
    assert await apart.held() == [0, 0]
