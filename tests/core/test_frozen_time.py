"""Tests that freeze time put a clock that stands still in the place of ours, and limiters go on all the same."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest
from support import semaphores as of_semaphores
from support.buckets import Kind, call

EXPIRY = 1.0
PATIENCE = 10.0


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What freezegun does to us: whatever name a module has `time.monotonic` under, it finds. Event loops go on."""
    clock, now = time.monotonic, time.monotonic()
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "steindamm"]:
        for name in [name for name, value in vars(module).items() if value is clock]:
            monkeypatch.setattr(module, name, lambda: now)


async def test_who_has_a_turn_starts_at_it(buckets: Kind, frozen: None) -> None:
    bucket = buckets(capacity=1, refill_frequency=0.1)
    for _ in range(3):
        await asyncio.wait_for(call(bucket.acquire), PATIENCE)


async def test_a_slot_is_kept_for_longer_than_its_lease(redis_semaphores: of_semaphores.Kind, frozen: None) -> None:
    semaphore = redis_semaphores(capacity=1, expiry=EXPIRY)
    permit = await call(semaphore.acquire)
    await asyncio.sleep(1.5 * EXPIRY)
    assert await call(semaphore.try_acquire) is None
    assert not permit.lost
    await call(semaphore.release, permit)
