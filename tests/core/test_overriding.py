"""Settings that are overridden while a limiter runs hold for all who share it, from their next call on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from support.buckets import Kind as Buckets
from support.buckets import call
from support.semaphore_and_clock import Semaphore
from support.semaphores import Kind as Semaphores
from support.semaphores import held, keys_of
from support.servers import Server

from steindamm import CostAboveCapacityError, MaxSleepExceededError, SyncSemaphore, SyncTokenBucket
from steindamm.rules.semaphore import Standing

HOUR = 3_600.0
HOLDING, WAITING, OUT = Standing.HOLDING, Standing.WAITING, Standing.OUT


class TestTheSlotsOfASemaphore:
    def test_that_are_more_are_handed_to_those_who_wait(self) -> None:
        semaphore = Semaphore()
        for asker in "abcd":
            semaphore.enter(asker)
        semaphore.override(3)
        assert semaphore.handed == ["b", "c"]

    def test_that_are_fewer_are_taken_from_nobody(self) -> None:
        semaphore = Semaphore(capacity=3)
        for asker in "abc":
            semaphore.enter(asker)
        semaphore.override(1)
        assert semaphore.holders == {"a", "b", "c"}
        assert [semaphore.renew(asker).standing for asker in "abc"] == [HOLDING] * 3
        assert semaphore.enter("d").standing is WAITING
        semaphore.leave("a")
        semaphore.leave("b")
        assert semaphore.handed == []
        semaphore.leave("c")
        assert semaphore.handed == ["d"]

    def test_are_again_as_the_code_says_when_that_is_cleared(self) -> None:
        semaphore = Semaphore(capacity=2)
        semaphore.override(1)
        semaphore.enter("a")
        semaphore.enter("b")
        semaphore.clear_override()
        assert semaphore.handed == ["b"]
        assert semaphore.state.live is None

    def test_that_are_overridden_while_it_is_closed_are_given_when_it_opens(self) -> None:
        semaphore = Semaphore()
        semaphore.close(10)
        semaphore.enter("a")
        semaphore.enter("b")
        semaphore.override(2)
        assert semaphore.handed == []
        semaphore.reopen()
        assert semaphore.handed == ["a", "b"]

    async def test_are_given_to_all_who_share_it(self, semaphores: Semaphores) -> None:
        one = semaphores(capacity=1)
        other = semaphores(one.name, capacity=5)
        await call(one.override, capacity=3)
        permits = [await call(limiter.try_acquire) for limiter in (one, other, one, other)]
        assert [permit is not None for permit in permits] == [True, True, True, False]

    async def test_that_are_more_wake_who_waits(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=1, max_sleep=0)
        await call(semaphore.acquire)
        waiting = asyncio.create_task(call(semaphore.acquire))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await call(semaphore.override, capacity=2)
        await asyncio.wait_for(waiting, 20)

    async def test_that_are_fewer_take_effect_with_the_next_acquire(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=3)
        permits = [await call(semaphore.acquire) for _ in range(3)]
        await call(semaphore.override, capacity=1)
        assert not any(permit.lost for permit in permits)
        for permit in permits:
            assert await call(semaphore.try_acquire) is None
            await call(semaphore.release, permit)
        assert await call(semaphore.try_acquire)
        assert await call(semaphore.try_acquire) is None

    async def test_are_cleared_for_all(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=4)
        await call(semaphore.override, capacity=1)
        await call(semaphores(semaphore.name, capacity=2).clear_override)
        assert await held(semaphore) == 0

    async def test_keep_their_override_when_it_has_been_idle(self, semaphores: Semaphores) -> None:
        semaphore = semaphores(capacity=4, expiry=0.2)
        await call(semaphore.override, capacity=1)
        await call(semaphore.release, await call(semaphore.acquire))
        await asyncio.sleep(0.5)
        assert await call(semaphore.try_acquire)
        assert await call(semaphore.try_acquire) is None

    async def test_are_kept_for_a_year(self, redis_semaphores: Semaphores) -> None:
        semaphore = redis_semaphores(capacity=4)
        await call(semaphore.override, capacity=1)
        for _ in range(2):
            lives = redis_semaphores.node(semaphore.name).ttl(keys_of(semaphore.name)[0])
            assert lives == pytest.approx(366 * 86_400, abs=10)
            await call(semaphore.release, await call(semaphore.acquire))

    @pytest.mark.parametrize("capacity", [0, -1, 1.5, float("nan"), float("inf"), 2**40])
    async def test_below_one_are_refused(self, semaphores: Semaphores, capacity: float) -> None:
        semaphore = semaphores(capacity=2)
        with pytest.raises(ValueError, match=r"^capacity must be"):
            await call(semaphore.override, capacity=capacity)
        assert await held(semaphore) == 0

    @pytest.mark.parametrize("capacity", [None, "2", True])
    async def test_that_are_no_number_are_refused(self, semaphores: Semaphores, capacity: object) -> None:
        with pytest.raises(TypeError, match=r"^capacity must be a whole number"):
            await call(semaphores().override, capacity=capacity)


class TestTheRateOfABucket:
    async def test_that_is_faster_moves_the_whole_line_up(self, buckets: Buckets) -> None:
        bucket = buckets(capacity=1, refill_frequency=HOUR, max_sleep=0)
        await call(bucket.acquire)
        sleepers = [asyncio.create_task(call(bucket.acquire)) for _ in range(3)]
        await asyncio.sleep(0.2)
        await call(buckets(bucket.name, capacity=1, refill_frequency=HOUR).override, refill_frequency=0.05)
        await asyncio.wait_for(asyncio.gather(*sleepers), 30)

    async def test_that_is_slower_moves_the_whole_line_back(self, buckets: Buckets) -> None:
        bucket = buckets(capacity=1, refill_frequency=1)
        await call(bucket.acquire)
        await call(bucket.override, refill_frequency=100)
        with pytest.raises(MaxSleepExceededError) as error:
            await call(bucket.acquire)
        assert error.value.retry_after == pytest.approx(100, rel=0.1)
        await call(bucket.clear_override)
        assert (await call(bucket.reserve)).delay <= 1

    async def test_and_its_capacity_are_the_same_for_all_who_share_it(self, buckets: Buckets) -> None:
        one = buckets(capacity=5, refill_frequency=HOUR)
        other = buckets(one.name, capacity=5, refill_frequency=HOUR, expiry=90)
        await call(one.override, capacity=2)
        permits = [await call(limiter.try_acquire) for limiter in (one, other, other)]
        assert [permit is not None for permit in permits] == [True, True, False]

    async def test_refuses_a_cost_above_a_lowered_capacity(self, buckets: Buckets) -> None:
        bucket = buckets(capacity=5)
        await call(bucket.override, capacity=2)
        with pytest.raises(CostAboveCapacityError, match="a cost of 3 is above its capacity, which was overridden"):
            await call(bucket(3).acquire)
        assert await call(bucket(3).try_acquire) is None
        assert await call(bucket(2).try_acquire)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"capacity": 0}, "capacity must be"),
            ({"capacity": float("nan")}, "capacity must be"),
            ({"capacity": 0.5}, "refill_amount must not exceed capacity"),
            ({"refill_amount": -1}, "refill_amount must be"),
            ({"refill_amount": 0}, "refill_amount and refill_frequency must both be above 0"),
            ({"refill_amount": 0, "refill_frequency": 0}, "must stay 0 for a quota"),
            ({"refill_frequency": float("inf")}, "refill_frequency must be"),
        ],
    )
    async def test_that_makes_no_sense_is_refused(self, buckets: Buckets, wrong: dict[str, Any], message: str) -> None:
        bucket = buckets()
        with pytest.raises(ValueError, match=message):
            await call(bucket.override, **wrong)
        assert await call(bucket(5).try_acquire)

    async def test_needs_a_setting(self, buckets: Buckets) -> None:
        with pytest.raises(TypeError, match="override needs a setting"):
            await call(buckets().override)


@pytest.mark.parametrize("by", ["", "a\nb", "\x1b[2J", "x" * 201])
async def test_a_signature_that_could_break_out_of_a_line_is_refused(
    semaphores: Semaphores, buckets: Buckets, by: str
) -> None:
    for limiter in (semaphores(), buckets()):
        with pytest.raises(ValueError, match=r"^by must be 1 to 200 characters that can be printed"):
            await call(limiter.override, capacity=2, by=by)


OTHER_PROCESS = """
import sys, time
from steindamm import SyncSemaphore, SyncTokenBucket
name, url = sys.argv[1:]
for limiter in (
    SyncSemaphore(name, capacity=4, connection=url),
    SyncTokenBucket(name, capacity=4, refill_frequency=3600, connection=url),
):
    print(sum(limiter.try_acquire() is not None for _ in range(9)), flush=True)
    sys.stdin.readline()
    time.sleep(0.1)
    print(sum(limiter.try_acquire() is not None for _ in range(9)), flush=True)
"""


def test_a_process_that_runs_goes_by_it_from_its_next_call_on(valkey: Server) -> None:
    name = "overridden elsewhere"
    semaphore = SyncSemaphore(name, capacity=4, connection=valkey.url)
    bucket = SyncTokenBucket(name, capacity=4, refill_frequency=HOUR, connection=valkey.url)
    command = [sys.executable, "-c", OTHER_PROCESS, name, valkey.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "4\n"
        semaphore.override(capacity=6)
        print(file=other.stdin, flush=True)
        assert other.stdout.readline() == "2\n"
        assert other.stdout.readline() == "4\n"
        bucket.override(capacity=6, refill_amount=6, refill_frequency=0.01)
        print(file=other.stdin, flush=True)
        assert int(other.stdout.readline()) >= 6
        bucket.clear_override()
