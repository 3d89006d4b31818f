"""Several limits at once, as callers see them: sync and async, in memory, on Valkey and on the cluster."""

from __future__ import annotations

import asyncio
import pickle
import random
import time
from typing import Any

import pytest
from support.buckets import call
from support.semaphores import until
from support.several import HOUR, Kind, slots_left, tokens_left

from steindamm import (
    AllOfPermit,
    MaxSleepExceededError,
    NoTokensAvailableError,
    all_of,
)
from steindamm.errors import CostAboveCapacityError


async def holding(limits: Any, body: Any) -> None:
    """Run a coroutine within a block of the limits, on this task or on a thread."""
    if hasattr(limits, "__aenter__"):
        async with limits as permit:
            await body(permit)
        return
    permit = await call(limits.__enter__)
    await body(permit)
    await call(limits.__exit__, None, None, None)


class TestWhereAllHaveIt:
    async def test_each_gives_it_and_slots_come_back(self, several: Kind) -> None:
        api, account, at_once = several.bucket(), several.bucket(), several.semaphore(capacity=2)

        async def body(permit: AllOfPermit) -> None:
            assert permit.name == limits.name
            assert permit.waited == 0
            assert not permit.lost
            assert sum(each.cost for each in permit.permits) == permit.cost == 1 + 3 + 1
            assert await slots_left(at_once) == 1

        limits = all_of(api, (account, 3), at_once)
        await holding(limits, body)
        assert await slots_left(at_once) == 2
        assert await tokens_left(api) == 4
        assert await tokens_left(account) == 2

    async def test_the_order_in_which_they_are_named_does_not_matter(self, several: Kind) -> None:
        limiters = [several.bucket(), several.semaphore(), several.bucket()]
        permit = await call(all_of(*limiters).acquire)
        again = all_of(*reversed(limiters))
        assert again.name == permit.name
        await call(again.release, permit)
        assert await slots_left(limiters[1]) == 5

    async def test_a_cost_of_nothing_passes_and_changes_nothing(self, several: Kind) -> None:
        empty = several.bucket(initial_tokens=0)
        other = several.bucket()
        permit = await call(all_of((empty, 0), other).try_acquire)
        assert [each.cost for each in permit.permits] == [limiter.cost for limiter in permit_order(empty(0), other)]
        assert await call(all_of((empty, 0)).try_acquire)
        assert await tokens_left(other) == 4

    async def test_each_permit_can_be_settled(self, several: Kind) -> None:
        tokens = several.bucket(capacity=10)
        permit = await call(all_of((tokens, 6), several.semaphore()).acquire)
        (settled,) = [each for each in permit.permits if each.name == tokens.name]
        await call(settled.settle, 2)
        assert await tokens_left(tokens) == 8

    async def test_one_that_cost_nothing_can_be_settled_as_well(self, several: Kind) -> None:
        tokens = several.bucket(capacity=10)
        permit = await call(all_of((tokens, 0), several.semaphore()).acquire)
        (unknown,) = [each for each in permit.permits if each.name == tokens.name]
        await call(unknown.settle, 3)
        assert await tokens_left(tokens) == 7

    async def test_a_decorated_function_starts_when_all_let_it(self, several: Kind) -> None:
        bucket, semaphore = several.bucket(), several.semaphore(capacity=1)
        limits = all_of(bucket, semaphore)

        def called(number: int) -> int:
            return number

        async def awaited(number: int) -> int:
            return number

        right, wrong = (awaited, called) if several.asynchronous else (called, awaited)
        assert await call(limits(right), 5) == 5
        assert await slots_left(semaphore) == 1
        assert await tokens_left(bucket) == 4
        with pytest.raises(TypeError, match="decorate it with"):
            limits(wrong)

    async def test_blocks_may_be_nested(self, several: Kind) -> None:
        semaphore = several.semaphore(capacity=2)
        limits = all_of(semaphore, several.bucket())

        async def nothing_left(_: Any) -> None:
            assert await slots_left(semaphore) == 0

        async def inner(_: Any) -> None:
            await holding(limits, nothing_left)
            assert await slots_left(semaphore) == 1

        await holding(limits, inner)
        assert await slots_left(semaphore) == 2

    async def test_limits_of_limits_are_limits(self, several: Kind) -> None:
        first, second, third = several.bucket(), several.bucket(), several.semaphore()
        limits = all_of(all_of(first, (second, 2)), third)
        assert len(limits.limiters) == 3
        await call(limits.acquire)
        assert await tokens_left(second) == 3


def permit_order(*limiters: Any) -> list[Any]:
    return sorted(limiters, key=lambda limiter: limiter.settings.key)


class TestWaiting:
    async def test_is_for_the_one_that_is_short(self, several: Kind) -> None:
        short = several.bucket(capacity=1, refill_frequency=0.2)
        other = several.bucket()
        await call(short.acquire)
        permit = await call(all_of(short, other).acquire)
        assert 0.1 < permit.waited < 2
        assert await tokens_left(other) == 4

    async def test_takes_nothing_from_the_others_meanwhile(self, several: Kind) -> None:
        short = several.bucket(capacity=1, refill_frequency=0.6)
        other, at_once = several.bucket(), several.semaphore(capacity=1)
        await call(short.acquire)
        task = asyncio.create_task(call(all_of(short, other, at_once).acquire))
        await asyncio.sleep(0.2)
        assert await slots_left(at_once) == 1
        assert await tokens_left(other) == 5
        permit = await call(at_once.acquire)
        task.cancel()
        await asyncio.wait({task})
        await call(at_once.release, permit)

    async def test_for_a_slot_ends_when_it_is_handed_over(self, several: Kind) -> None:
        at_once, tokens = several.semaphore(capacity=1), several.bucket()
        limits = all_of(at_once, tokens)
        permit = await call(at_once.acquire)
        task = asyncio.create_task(call(limits.acquire))
        await asyncio.sleep(0.1)
        assert not task.done()
        await call(at_once.release, permit)
        await call(limits.release, await asyncio.wait_for(task, 5))
        assert await slots_left(at_once) == 1
        assert await tokens_left(tokens) == 4

    async def test_for_slots_is_in_the_order_of_asking(self, several: Kind) -> None:
        at_once, order = several.semaphore(capacity=1), []
        limits = all_of(at_once, several.bucket(capacity=100))
        permit = await call(at_once.acquire)

        async def one(number: int) -> None:
            mine = await call(limits.acquire)
            order.append(number)
            await call(limits.release, mine)

        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(0.05)
        await call(at_once.release, permit)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    async def test_for_a_closed_limiter_ends_when_it_reopens(self, several: Kind) -> None:
        closed, other = several.bucket(refill_frequency=0.01), several.bucket()
        await call(closed.close_for, 20)
        task = asyncio.create_task(call(all_of(closed, other).acquire))
        await asyncio.sleep(0.1)
        assert not task.done()
        await call(closed.reopen)
        assert await asyncio.wait_for(task, 5)
        assert await tokens_left(other) == 4

    async def test_for_a_closed_semaphore_ends_when_it_reopens(self, several: Kind) -> None:
        closed, tokens = several.semaphore(capacity=1), several.bucket()
        await call(closed.close_for, 20)
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(all_of(closed, tokens, max_sleep=10).acquire)
        assert refused.value.name == closed.name
        task = asyncio.create_task(call(all_of(closed, tokens).acquire))
        await asyncio.sleep(0.1)
        assert not task.done()
        await call(closed.reopen)
        assert await asyncio.wait_for(task, 5)
        assert await tokens_left(tokens) == 4


class TestRefusals:
    async def test_name_the_limiter_and_leave_the_others_as_they_were(self, several: Kind) -> None:
        first, second, at_once = several.bucket(), several.bucket(), several.semaphore()
        await call(second(5).acquire)
        before = [several.known(limiter) for limiter in (first, at_once)]
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(all_of(first, second, at_once, max_sleep=10).acquire)
        assert refused.value.name == second.name
        assert HOUR - 60 < refused.value.retry_after <= HOUR
        assert refused.value.max_sleep == 10
        assert [several.known(limiter) for limiter in (first, at_once)] == before
        assert pickle.loads(pickle.dumps(refused.value)).name == second.name

    @pytest.mark.parametrize("refills", [(1, 2), (2, 1)])
    async def test_name_the_one_with_the_longest_wait(self, several: Kind, refills: tuple[int, int]) -> None:
        buckets = [several.bucket(capacity=1, refill_frequency=refill * HOUR) for refill in refills]
        await call(all_of(*buckets).acquire)
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(all_of(*buckets, max_sleep=10).acquire)
        assert refused.value.name == buckets[refills.index(2)].name
        assert refused.value.retry_after > HOUR

    @pytest.mark.parametrize("lowered_first", [True, False])
    async def test_for_good_come_before_those_for_now(self, several: Kind, lowered_first: bool) -> None:
        buckets = several.bucket(), several.bucket()
        lowered, spent = buckets if lowered_first else reversed(buckets)
        await call(spent(5).acquire)
        await call(lowered.override, capacity=2)
        with pytest.raises(CostAboveCapacityError, match=lowered.name):
            await call(all_of((lowered, 3), spent, max_sleep=2 * HOUR).acquire)

    async def test_come_where_no_slot_did_within_max_sleep(self, several: Kind) -> None:
        at_once, tokens = several.semaphore(capacity=1), several.bucket()
        permit = await call(at_once.acquire)
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(all_of(at_once, tokens, max_sleep=0.1).acquire)
        assert refused.value.name == at_once.name
        await call(at_once.release, permit)
        assert await slots_left(at_once) == 1
        assert await tokens_left(tokens) == 5

    async def test_of_a_spent_quota_say_so(self, several: Kind) -> None:
        quota = several.bucket(capacity=1, refill_amount=0, refill_frequency=0)
        limits = all_of(quota, several.bucket())
        await call(limits.acquire)
        with pytest.raises(NoTokensAvailableError, match=quota.name):
            await call(limits.acquire)

    async def test_of_a_cost_above_an_overridden_capacity_say_so(self, several: Kind) -> None:
        lowered, other = several.bucket(capacity=5), several.bucket()
        await call(lowered.override, capacity=2)
        with pytest.raises(CostAboveCapacityError, match=lowered.name):
            await call(all_of((lowered, 3), other).acquire)
        assert await tokens_left(other) == 5

    async def test_of_who_never_waits_are_none(self, several: Kind) -> None:
        first, second = several.bucket(capacity=2), several.bucket(capacity=1)
        limits = all_of(first, second)
        assert await call(limits.try_acquire)
        assert await call(limits.try_acquire) is None
        assert await tokens_left(first) == 1

    async def test_leave_nothing_whatever_the_mix(self, several: Kind) -> None:
        """Random mixes of limits and costs: what is granted is granted by all, a refusal changes nothing."""
        chance = random.Random(repr(several))
        for _ in range(4):
            parts = [several.bucket(capacity=chance.randint(3, 8)) for _ in range(chance.randint(1, 3))]
            at_once = several.semaphore(capacity=chance.randint(2, 4))
            taken = dict.fromkeys(parts, 0)
            permits = []
            for _ in range(8):
                costs = {part: chance.randint(0, 3) for part in parts if chance.random() < 0.8}
                limits = all_of(*costs.items(), at_once)
                before = [several.known(each) for each in (*parts, at_once)]
                permit = await call(limits.try_acquire)
                if permit is not None:
                    permits.append((limits, permit))
                    for part, cost in costs.items():
                        taken[part] += cost
                elif several.is_apart or several.local:
                    assert await slots_left(at_once) == at_once.settings.capacity - len(permits)
                else:
                    after = [several.known(each) for each in (*parts, at_once)]
                    assert sum(one != other for one, other in zip(before, after, strict=True)) <= 1
            assert len(permits) <= at_once.settings.capacity
            for limits, permit in permits:
                await call(limits.release, permit)
            assert await slots_left(at_once) == at_once.settings.capacity
            for part, tokens in taken.items():
                assert await tokens_left(part) == part.settings.capacity - tokens


class TestReservations:
    async def test_take_now_for_a_start_that_all_have(self, several: Kind) -> None:
        if several.is_apart:
            pytest.skip("several slots can't agree on a later start")
        short, other = several.bucket(capacity=1, refill_frequency=10), several.bucket()
        await call(short.acquire)
        reservation = await call(all_of(short, other, max_sleep=20).reserve)
        assert 9 < reservation.delay <= 10
        assert await tokens_left(other) == 4

    async def test_can_be_cancelled_once(self, several: Kind) -> None:
        tokens, at_once = several.bucket(), several.semaphore(capacity=1)
        reservation = await call(all_of((tokens, 3), at_once).reserve)
        assert reservation.delay == 0
        for _ in range(2):
            await call(reservation.cancel)
        assert await slots_left(at_once) == 1
        assert await tokens_left(tokens) == 5

    @pytest.mark.parametrize("actual", [1, 9])
    async def test_keep_the_tokens_that_were_settled_when_they_are_cancelled(self, several: Kind, actual: int) -> None:
        free, tokens, other = several.bucket(), several.bucket(capacity=10), several.bucket()
        at_once = several.semaphore(capacity=1)
        reservation = await call(all_of((free, 0), (tokens, 4), (other, 2), at_once).reserve)
        (settled,) = [each for each in reservation.permit.permits if each.name == tokens.name]
        await call(settled.settle, actual)
        await call(reservation.cancel)
        assert [await tokens_left(bucket) for bucket in (tokens, other)] == [10 - actual, 5]
        assert await slots_left(at_once) == 1

    async def test_are_refused_where_no_slot_is_free(self, several: Kind) -> None:
        at_once, tokens = several.semaphore(capacity=1), several.bucket()
        await call(at_once.acquire)
        with pytest.raises(MaxSleepExceededError) as refused:
            await call(all_of(at_once, tokens).reserve)
        assert refused.value.name == at_once.name
        assert await tokens_left(tokens) == 5


class TestReleasing:
    async def test_twice_changes_nothing(self, several: Kind) -> None:
        at_once = several.semaphore(capacity=2)
        limits = all_of(at_once, several.bucket())
        first, _ = await call(limits.acquire), await call(limits.acquire)
        for _ in range(2):
            await call(limits.release, first)
        assert await slots_left(at_once) == 1

    async def test_what_is_no_permit_of_these_limits_is_an_error(self, several: Kind) -> None:
        semaphore = several.semaphore()
        limits = all_of(semaphore, several.bucket())
        with pytest.raises(TypeError, match="permit must be what acquire returned"):
            await call(limits.release, await call(semaphore.acquire))
        with pytest.raises(ValueError, match="permit must be of"):
            await call(limits.release, await call(all_of(semaphore).acquire))


async def test_an_all_of_made_for_each_call_shares_with_all_others(several: Kind) -> None:
    names = [several.bucket(capacity=3).name, several.semaphore().name]

    async def one() -> bool:
        limits = all_of(several.bucket(names[0], capacity=3), several.semaphore(names[1]))
        return await call(limits.try_acquire) is not None

    assert sum([await one() for _ in range(6)]) == 3


async def test_many_callers_in_different_orders_all_come_through(several: Kind) -> None:
    limiters = [
        several.bucket(capacity=5, refill_frequency=0.002),
        several.semaphore(capacity=3),
        several.semaphore(capacity=2),
    ]
    running = most = 0

    async def one(number: int) -> None:
        nonlocal running, most
        mixed = random.Random(number).sample(limiters, 3)

        async def body(_: Any) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1

        await holding(all_of(*mixed, max_sleep=60), body)

    begun = time.monotonic()
    await asyncio.gather(*map(one, range(30)))
    assert most == 2
    assert time.monotonic() - begun < 60
    await until(lambda: True)
    assert await slots_left(limiters[1]) == 3
