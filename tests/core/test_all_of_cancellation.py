"""Whoever is cancelled or interrupted on the way through several limits leaves nothing held, taken or waiting."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest
from support.cancelling import cancelled_at_each_step
from support.servers import Server
from support.several import HOUR, Kind, slots_left, tokens_left

from steindamm import MaxSleepExceededError, SyncSemaphore, SyncTokenBucket, all_of
from steindamm.backends.memory_all_of import MemoryAllOf
from steindamm.backends.redis.watch import SyncWatch
from steindamm.visits import SyncBooked


async def comes_true(condition: Any, patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while not await condition():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.005)


def in_line(kind: Kind, semaphore: Any) -> int:
    """How many stand in the line of a semaphore."""
    known = kind.known(semaphore)
    if kind.local:
        state = semaphore.backend._semaphore._states.get(semaphore.name)
        return 0 if state is None else len(state.present)
    return sum(len(value) for key, value in known if key.endswith(b":present"))


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
class TestATaskCancelledAtAnyAwait:
    async def test_of_an_acquire_that_starts_at_once(self, async_several: Kind, again: bool) -> None:
        bucket, semaphore = async_several.bucket(capacity=1_000), async_several.semaphore(capacity=2)
        limits = all_of(bucket, semaphore)

        async def acquire() -> None:
            await limits.release(await limits.acquire())

        async def nothing_is_left() -> None:
            await comes_true(lambda: are_free(semaphore, 2))

        await acquire()
        steps = await cancelled_at_each_step(acquire, nothing_is_left, again=again)
        assert steps > 0

    async def test_of_an_acquire_that_is_refused_after_a_wait(self, async_several: Kind, again: bool) -> None:
        tokens, semaphore = async_several.bucket(), async_several.semaphore(capacity=1)
        limits = all_of(tokens, semaphore, max_sleep=0.02)
        permit = await semaphore.acquire()

        async def refused() -> None:
            with pytest.raises(MaxSleepExceededError):
                await limits.acquire()

        async def only_the_holder_is_left() -> None:
            async def is_so() -> bool:
                return await slots_left(semaphore) == 0 and in_line(async_several, semaphore) == 0

            await comes_true(is_so)

        assert await cancelled_at_each_step(refused, only_the_holder_is_left, again=again) > 0
        await semaphore.release(permit)
        assert await tokens_left(tokens) == 5

    async def test_of_what_takes_tokens_gives_them_back(self, async_several: Kind, again: bool) -> None:
        first, second = async_several.bucket(capacity=3), async_several.bucket(capacity=4)
        limits = all_of((first, 2), second)

        async def reserve() -> None:
            reservation = await limits.reserve()
            await reservation.cancel()

        await reserve()
        await cancelled_at_each_step(reserve, nothing_taken(first, second), again=again)


def nothing_taken(*buckets: Any) -> Any:
    """Whether each bucket has all of its tokens, which nobody takes to find out."""

    async def check() -> None:
        for bucket in buckets:
            whole = bucket(bucket.settings.capacity)

            async def is_so(whole: Any = whole) -> bool:
                try:
                    reservation = await whole.reserve()
                except MaxSleepExceededError:
                    return False
                await reservation.cancel()
                return True

            await comes_true(is_so)

    return check


async def are_free(semaphore: Any, slots: int) -> bool:
    return await slots_left(semaphore) == slots


class Replies:
    """The replies to a client's calls, which come when the test says so."""

    def __init__(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.come = asyncio.Event()
        self.sent = asyncio.Event()
        self._execute = client.execute_command
        monkeypatch.setattr(client, "execute_command", self._execute_command)

    async def _execute_command(self, *args: Any, **options: Any) -> Any:
        reply = await self._execute(*args, **options)
        self.sent.set()
        await self.come.wait()
        return reply


@pytest.mark.parametrize("method", ["acquire", "try_acquire", "reserve", "ask"])
async def test_what_is_given_to_one_who_was_cancelled_meanwhile_goes_back(
    async_several: Kind, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if async_several.local:
        pytest.skip("nothing is under way in memory")
    first, second, at_once = async_several.bucket(), async_several.bucket(), async_several.semaphore(capacity=1)
    limits = all_of((first, 2), second, at_once)
    replies = Replies(first.backend.link.client, monkeypatch)
    task = asyncio.create_task(getattr(limits, method)())
    await asyncio.wait_for(replies.sent.wait(), 5)
    task.cancel()
    await asyncio.sleep(0.02)
    replies.come.set()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    await nothing_taken(first, second)()
    await comes_true(lambda: are_free(at_once, 1))


async def test_a_turn_that_is_given_up_goes_to_the_next_who_sleeps(async_several: Kind) -> None:
    short, other = async_several.bucket(capacity=1, refill_frequency=1), async_several.bucket()
    limits = all_of(short, other)
    await short.acquire()
    first = asyncio.create_task(limits.acquire())
    await asyncio.sleep(0.05)
    second = asyncio.create_task(limits.acquire())
    await asyncio.sleep(0.05)
    first.cancel()
    permit = await asyncio.wait_for(second, 5)
    assert permit.waited < 1.8


async def test_the_last_turn_that_is_given_up_goes_back(async_several: Kind) -> None:
    short = async_several.bucket(capacity=1, refill_frequency=10)
    limits = all_of(short, async_several.bucket(), max_sleep=60)
    await short.acquire()
    sleepers = [asyncio.create_task(limits.acquire()) for _ in range(3)]
    await asyncio.sleep(0.2)
    for sleeper in sleepers:
        sleeper.cancel()
    await asyncio.wait(sleepers)

    async def is_first() -> bool:
        reservation = await short.reserve()
        await reservation.cancel()
        return reservation.delay <= 10

    await comes_true(is_first)


async def test_a_slot_handed_to_one_who_is_cancelled_goes_to_the_next(async_several: Kind) -> None:
    at_once = async_several.semaphore(capacity=1)
    limits = all_of(at_once, async_several.bucket(capacity=100), max_sleep=10)
    for steps in range(8):
        permit = await at_once.acquire()
        first, second = (asyncio.create_task(limits.acquire()) for _ in range(2))

        async def both_wait() -> bool:
            return in_line(async_several, at_once) == 2

        await comes_true(both_wait)
        release = asyncio.create_task(at_once.release(permit))
        for _ in range(steps):
            await asyncio.sleep(0)
        first.cancel()
        await release
        await asyncio.wait({first}, timeout=5)
        if not first.cancelled():
            await limits.release(first.result())
        await limits.release(await asyncio.wait_for(second, 5))
    await comes_true(lambda: are_free(at_once, 1))


async def test_a_coroutine_that_is_closed_leaves_nothing(async_several: Kind) -> None:
    at_once = async_several.semaphore(capacity=1)
    limits = all_of(at_once, async_several.bucket())
    permit = await at_once.acquire()
    waiting = limits.acquire()
    task = asyncio.ensure_future(started(waiting))
    await asyncio.sleep(0.1)
    assert in_line(async_several, at_once) == 1
    waiting.close()
    task.cancel()
    gc.collect()

    async def is_so() -> bool:
        return in_line(async_several, at_once) == 0

    await comes_true(is_so)
    await at_once.release(permit)


class LateQuestion:
    """The first question comes to the server when the test says so; those after it come before."""

    def __init__(self, link: Any) -> None:
        self.others = 0
        self._ask = link.ask
        self._question: Any = None
        link.ask = self.ask

    async def ask(self, *question: Any) -> Any:
        if self._question is None:
            self._question = question
            await asyncio.sleep(HOUR)
        reply = await self._ask(*question)
        self.others += 1
        return reply

    async def comes(self) -> None:
        await self._ask(*self._question)


async def test_a_question_that_comes_to_the_server_after_its_asker_has_left_keeps_no_slot(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may where the two go by different connections of a cluster's client."""
    monkeypatch.setattr("steindamm.backends.redis.all_of.ONCE_MORE", 0.1)
    kind = Kind(asynchronous=True, connection=valkey.url, admins=[valkey.admin])
    semaphore = kind.semaphore(capacity=1)
    limits = all_of(semaphore, kind.bucket())
    late = LateQuestion(limits._backend.link)
    acquire = limits.acquire()
    acquire.send(None)
    acquire.close()

    async def has_left() -> bool:
        return late.others == 1

    await comes_true(has_left)
    await late.comes()
    assert (await semaphore.state()).holders
    await comes_true(lambda: are_free(semaphore, 1))


async def started(coroutine: Any) -> None:
    """Drive a coroutine to where it waits, and leave it there."""
    awaiting = coroutine.__await__() if hasattr(coroutine, "__await__") else coroutine
    for _ in range(50):
        try:
            future = awaiting.send(None)
        except StopIteration:
            return
        if future is None:
            await asyncio.sleep(0)
            continue
        done, _ = await asyncio.wait({future}, timeout=0.05)
        if not done:
            await asyncio.sleep(HOUR)


class Interruption(BaseException):
    """What a signal's handler raises in a thread."""


class TestAThreadInterrupted:
    def test_in_its_sleep_gives_its_turn_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        short, other = SyncTokenBucket("interrupted", capacity=1, refill_frequency=10), SyncTokenBucket("not asked")
        short.acquire()

        def interrupted(*_: Any) -> None:
            raise Interruption

        monkeypatch.setattr(SyncBooked, "sleep_among", interrupted)
        with pytest.raises(Interruption):
            all_of(short, other, max_sleep=60).acquire()
        reservation = short.reserve()
        assert reservation.delay <= 10
        reservation.cancel()

    def test_in_line_leaves_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at_once = SyncSemaphore("interrupted", capacity=1)
        limits = all_of(at_once, SyncTokenBucket("not asked either"))
        permit = at_once.acquire()

        def interrupted(*_: Any) -> None:
            raise Interruption

        monkeypatch.setattr("steindamm.sync_all_of.Bell.wait", interrupted)
        with pytest.raises(Interruption):
            limits.acquire()
        at_once.release(permit)
        assert at_once.try_acquire()

    def test_just_before_its_start_gives_all_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        near = SyncTokenBucket("near", capacity=1, refill_frequency=0.04)
        tokens, at_once = SyncTokenBucket("taken ahead"), SyncSemaphore("taken ahead", capacity=1)
        near.acquire()

        def interrupted(_: float) -> None:
            raise Interruption

        monkeypatch.setattr("steindamm.sync_all_of.time.sleep", interrupted)
        with pytest.raises(Interruption):
            all_of(near, tokens, at_once).acquire()
        assert at_once.try_acquire()
        assert tokens(5).try_acquire()

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    async def test_as_it_gives_its_slot_back_keeps_none(
        self, valkey: Server, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        """A ticket is forgotten here before its slot is given back at the server."""
        name = f"interrupted as it ends, {after}"
        at_once = SyncSemaphore(name, capacity=1, connection=valkey.url)
        limits = all_of(at_once, SyncTokenBucket(name, connection=valkey.url))
        remove = SyncWatch.remove

        def interrupted(*args: Any) -> None:
            monkeypatch.setattr(SyncWatch, "remove", remove)
            if after:
                remove(*args)
            raise Interruption

        with pytest.raises(Interruption), limits:
            monkeypatch.setattr(SyncWatch, "remove", interrupted)

        async def is_free() -> bool:
            return at_once.state().held == 0

        await comes_true(is_free)

    def test_as_it_gives_its_slot_back_in_memory_keeps_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at_once = SyncSemaphore("interrupted as it ends", capacity=1)
        limits = all_of(at_once, SyncTokenBucket("interrupted as it ends"))
        decide = MemoryAllOf._decide

        def interrupted(*_: Any) -> None:
            monkeypatch.setattr(MemoryAllOf, "_decide", decide)
            raise Interruption

        with pytest.raises(Interruption), limits:
            monkeypatch.setattr(MemoryAllOf, "_decide", interrupted)
        assert at_once.state().held == 0
        assert at_once.try_acquire()
