"""Several limits at once, asked on behalf of jobs that wait elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.buckets import call
from support.several import HOUR, Kind, slots_left, tokens_left

from steindamm import all_of


async def test_a_job_starts_books_comes_back_and_starts_at_its_turn(several: Kind) -> None:
    short, other = several.bucket(capacity=1, refill_frequency=0.3), several.bucket()
    limits = all_of(short, other)
    assert (await call(limits.ask)).permit is not None
    booked = await call(limits.ask, horizon=10)
    assert booked.permit is None
    assert 0 < booked.wait <= 0.3
    assert booked.limiter == short.name
    assert sorted(turn is not None for turn in booked.turn) == [False, True]
    await asyncio.sleep(booked.wait)
    started = await call(limits.ask, turn=booked.turn, accept=0.3, horizon=10)
    assert started.permit is not None
    assert await tokens_left(other) == 3


async def test_a_job_goes_away_from_a_semaphore_with_its_place(several: Kind) -> None:
    at_once = several.semaphore(capacity=1)
    limits = all_of(at_once, several.bucket())
    first = await call(limits.ask)
    waits = await call(limits.ask, horizon=10)
    assert waits.limiter == at_once.name
    assert waits.ticket is not None
    await call(limits.release, first.permit)
    assert (await call(limits.ask, turn=waits.turn, horizon=10)).permit


async def test_what_a_job_will_not_use_goes_back(several: Kind) -> None:
    short, at_once = several.bucket(capacity=1), several.semaphore(capacity=1)
    limits = all_of(short, at_once)
    await call(limits.give_back, await call(limits.ask))
    assert await slots_left(at_once) == 1
    assert await tokens_left(short) == 1
    booked = await call(limits.ask, horizon=2 * HOUR)
    await call(limits.give_back, booked)
    assert (await call(limits.ask, horizon=2 * HOUR)).wait == pytest.approx(booked.wait, abs=30)


async def test_a_job_beyond_the_horizon_is_told_the_wait_alone(several: Kind) -> None:
    short = several.bucket(capacity=1)
    limits = all_of(short, several.bucket())
    await call(limits.ask)
    answer = await call(limits.ask, horizon=5)
    assert (answer.permit, answer.turn, answer.limiter) == (None, None, short.name)
    assert answer.wait > 5


@pytest.mark.parametrize("turn", [(1.0,), (1.0, 2.0, 3.0), 5.0, "ab", {1.0: 2.0, 3.0: 4.0}])
async def test_turns_that_no_answer_gave_are_an_error(turn: Any) -> None:
    kind = Kind(asynchronous=False, connection=None, admins=[])
    with pytest.raises((ValueError, TypeError), match="turn"):
        all_of(kind.bucket(), kind.bucket()).ask(turn=turn)
