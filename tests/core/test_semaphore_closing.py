"""A closed semaphore gives nobody a slot; those who hold one keep it, and those who wait start when it opens."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from support.buckets import call
from support.semaphore_and_clock import LEASE, PRESENCE, SECOND, Semaphore
from support.semaphores import STATE, Kind, held, keys_of, until

from steindamm import MaxSleepExceededError
from steindamm.backends import terms
from steindamm.rules.semaphore import Standing, Stay, is_idle

HOLDING, WAITING, OUT = Standing.HOLDING, Standing.WAITING, Standing.OUT


# The rule, at times that the test sets


def test_nobody_is_given_a_slot_while_it_is_closed_and_the_wait_is_told() -> None:
    semaphore = Semaphore(capacity=2)
    semaphore.close(10)
    refused = semaphore.enter("a", Stay.NO)
    assert (refused.standing, refused.wait, refused.closed) == (OUT, 10 * SECOND, 10 * SECOND)
    assert semaphore.enter("b").standing is WAITING
    semaphore.now += 10 * SECOND
    assert semaphore.enter("c", Stay.NO).standing is HOLDING


def test_those_who_wait_are_handed_what_is_free_when_it_opens_in_their_order() -> None:
    semaphore = Semaphore(capacity=2)
    for asker in "abc":
        semaphore.enter(asker)
    semaphore.close(3)
    semaphore.enter("d")
    semaphore.leave("a")
    semaphore.leave("b")
    assert semaphore.handed == []
    semaphore.now += 3 * SECOND
    semaphore.renew("nobody")
    assert semaphore.handed == ["c", "d"]


def test_those_who_hold_a_slot_keep_it_and_renew_it() -> None:
    semaphore = Semaphore()
    semaphore.enter("a")
    semaphore.close(10 * LEASE / SECOND)
    for _ in range(5):
        semaphore.now += LEASE / 3
        assert semaphore.renew("a").standing is HOLDING
    assert semaphore.leave("a").standing is HOLDING


def test_a_job_that_is_away_keeps_its_place_and_is_told_to_come_back_after_it() -> None:
    semaphore = Semaphore()
    semaphore.close(100)
    first, second = semaphore.enter("first", Stay.AWAY), semaphore.enter("second", Stay.AWAY)
    assert 100 * SECOND <= first.wait < second.wait
    semaphore.now += 100 * SECOND
    assert semaphore.enter("first, again", Stay.AWAY, first.number).standing is HOLDING


def test_closing_once_more_for_longer_counts_and_for_less_does_not() -> None:
    semaphore = Semaphore()
    semaphore.close(10)
    semaphore.now += 4 * SECOND
    semaphore.close(2)
    assert semaphore.enter("a", Stay.NO).closed == 6 * SECOND
    semaphore.close(8)
    assert semaphore.enter("a", Stay.NO).closed == 8 * SECOND


def test_reopening_hands_out_what_is_free() -> None:
    semaphore = Semaphore()
    semaphore.close(1_000)
    semaphore.enter("a")
    semaphore.enter("b")
    semaphore.reopen()
    assert semaphore.handed == ["a"]
    assert semaphore.state.live is None


def test_a_clock_that_is_set_back_leaves_it_closed_for_no_longer_than_was_meant() -> None:
    semaphore = Semaphore()
    semaphore.close(5)
    semaphore.now -= 500 * SECOND
    assert semaphore.enter("a", Stay.NO).closed == 5 * SECOND


def test_one_that_is_closed_is_not_forgotten_and_one_that_has_opened_is() -> None:
    semaphore = Semaphore()
    semaphore.close(5)
    assert not is_idle(semaphore.state, semaphore.now)
    assert is_idle(semaphore.state, semaphore.now + 5 * SECOND)


def test_one_who_vanished_while_it_was_closed_is_passed_over() -> None:
    semaphore = Semaphore()
    semaphore.close(2 * PRESENCE / SECOND)
    semaphore.enter("vanished")
    semaphore.now += 1.5 * PRESENCE
    semaphore.enter("alive")
    semaphore.now += PRESENCE / 2
    semaphore.renew("nobody")
    assert semaphore.handed == ["alive"]


# The face, on real backends


@pytest.fixture
def renewed_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiters renew their places after a minute, so that nothing but the opening itself can wake them sooner."""
    monkeypatch.setattr(terms, "PRESENCE", 180.0)


async def test_whoever_shares_it_is_refused_at_once(semaphores: Kind) -> None:
    one = semaphores(max_sleep=5)
    other = semaphores(one.name, max_sleep=5, capacity=7)
    await call(one.close_for, 60)
    assert await call(other.try_acquire) is None
    for refused in (other.acquire, other.reserve):
        with pytest.raises(MaxSleepExceededError) as error:
            await call(refused)
        assert error.value.retry_after == pytest.approx(60, abs=5)
    await call(other.reopen)
    assert await call(one.try_acquire)


@pytest.mark.usefixtures("renewed_rarely")
async def test_whoever_asks_meanwhile_starts_when_it_opens(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=2, expiry=600)
    await call(semaphore.close_for, 0.6)
    began = time.monotonic()
    permits = await asyncio.wait_for(asyncio.gather(*(call(semaphore.acquire) for _ in range(2))), 20)
    assert time.monotonic() - began > 0.4
    assert min(permit.waited for permit in permits) > 0.4


@pytest.mark.usefixtures("renewed_rarely")
async def test_whoever_waits_already_starts_when_it_opens(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=1, expiry=600)
    permit = await call(semaphore.acquire)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await stands_in_line(semaphores, semaphore.name)
    began = time.monotonic()
    await call(semaphore.close_for, 0.6)
    await call(semaphore.release, permit)
    await asyncio.wait_for(waiting, 20)
    assert time.monotonic() - began > 0.59


@pytest.mark.usefixtures("renewed_rarely")
async def test_whoever_waits_starts_when_it_is_reopened(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=1, max_sleep=0, expiry=600)
    await call(semaphore.close_for, 3_600)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await stands_in_line(semaphores, semaphore.name)
    await call(semaphores(semaphore.name, capacity=1, expiry=600).reopen)
    permit = await asyncio.wait_for(waiting, 20)
    assert permit.waited < 20


@pytest.mark.usefixtures("renewed_rarely")
async def test_one_that_is_closed_again_opens_at_the_later_time(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=1, expiry=600)
    began = time.monotonic()
    await call(semaphore.close_for, 0.3)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await stands_in_line(semaphores, semaphore.name)
    await call(semaphore.close_for, 1)
    await asyncio.wait_for(waiting, 20)
    assert time.monotonic() - began > 1


async def test_who_waits_is_refused_when_it_stays_closed_for_longer(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=1, max_sleep=0.5)
    await call(semaphore.acquire)
    waiting = asyncio.create_task(call(semaphore.acquire))
    await stands_in_line(semaphores, semaphore.name)
    await call(semaphore.close_for, 60)
    with pytest.raises(MaxSleepExceededError) as error:
        await asyncio.wait_for(waiting, 20)
    assert error.value.retry_after > 50


async def test_those_who_hold_a_slot_keep_it_for_longer_than_a_lease(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores(capacity=2, expiry=0.5)
    permit = await call(semaphore.acquire)
    await call(semaphore.close_for, 60)
    await asyncio.sleep(1.2)
    assert not permit.lost
    await call(semaphore.reopen)
    assert await held(semaphore) == 1
    await call(semaphore.release, permit)
    assert await held(semaphore) == 0


async def test_a_slot_that_comes_back_while_it_is_closed_stays_free(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=1)
    permit = await call(semaphore.acquire)
    await call(semaphore.close_for, 60)
    await call(semaphore.release, permit)
    assert await call(semaphore.try_acquire) is None
    await call(semaphore.reopen)
    assert await call(semaphore.try_acquire)


async def test_a_job_is_told_to_come_back_when_it_opens(semaphores: Kind) -> None:
    semaphore = semaphores(capacity=1)
    await call(semaphore.close_for, 60)
    answer = await call(semaphore.ask)
    assert answer.permit is None
    assert answer.wait == pytest.approx(60, abs=5)
    await call(semaphore.reopen)
    assert (await call(semaphore.ask, turn=answer.turn)).permit


async def test_it_can_be_closed_until_a_moment(semaphores: Kind) -> None:
    semaphore = semaphores(max_sleep=5)
    await call(semaphore.close_until, datetime.now(UTC) + timedelta(seconds=100))
    with pytest.raises(MaxSleepExceededError) as error:
        await call(semaphore.acquire)
    assert error.value.retry_after == pytest.approx(100, abs=5)


async def test_backing_off_closes_it(semaphores: Kind) -> None:
    semaphore = semaphores()
    await call(semaphore.back_off, 0.3)
    assert not await call(semaphore.try_acquire)
    await asyncio.sleep(0.4)
    assert await call(semaphore.try_acquire)


async def test_a_closed_semaphore_has_an_end_in_redis(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores(expiry=1)
    await call(semaphore.close_for, 1_000)
    assert 990 < redis_semaphores.node(semaphore.name).ttl(keys_of(semaphore.name)[0]) <= 1_001


async def test_one_that_was_closed_takes_no_more_room_than_before(redis_semaphores: Kind) -> None:
    semaphore = redis_semaphores()
    await call(semaphore.close_for, 0.1)
    await asyncio.sleep(0.2)
    await call(semaphore.acquire)
    assert redis_semaphores.node(semaphore.name).strlen(keys_of(semaphore.name)[0]) == STATE.size


@pytest.mark.parametrize("seconds", [-1, float("nan"), inf, 400 * 86_400.0])
async def test_a_time_that_is_none_is_refused(semaphores: Kind, seconds: float) -> None:
    semaphore = semaphores()
    for close in (semaphore.close_for, semaphore.back_off):
        with pytest.raises(ValueError, match=r"^(seconds|retry_after) must be"):
            await call(close, seconds)
    assert await call(semaphore.try_acquire)


async def test_a_moment_that_has_passed_is_refused(semaphores: Kind) -> None:
    with pytest.raises(ValueError, match=r"^moment must lie in the future"):
        await call(semaphores().close_until, datetime.now(UTC) - timedelta(seconds=1))


async def stands_in_line(kind: Kind, name: str) -> None:
    """Until somebody waits."""
    if kind.local:
        await asyncio.sleep(0.1)
    else:
        await until(lambda: kind.state(name)["waiting"] == 1)


def test_one_in_memory_that_is_closed_does_not_keep_its_process_from_ending() -> None:
    code = 'import steindamm; steindamm.SyncSemaphore("closed").close_for(600)'
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
