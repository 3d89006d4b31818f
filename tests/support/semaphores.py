"""Semaphores of every kind, asked in one way: sync ones on threads, async ones directly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from struct import Struct
from typing import Any

import redis

from steindamm import AsyncSemaphore, SyncSemaphore
from steindamm.backends.redis.semaphore import PARTS
from support.buckets import call

NUMBERS = count(1)
LUA = Path(__file__).parents[2] / "lua"
STATE = Struct("<16d")
LIVE = Struct("<3d")
"""What follows the state where something is changed: when it reopens, its capacity, when that was set."""
META = (
    "capacity", "held", "listening", "waiting", "earliest", "fading", "seen", "fence", "arrivals", "mean",
    "granted", "deferred", "refused", "waited", "until_leases", "until_waiters",
)  # fmt: skip
TEST_CLOCK = "local function now_us() return tonumber(KEYS[7]) end"


def script_text(clock: str) -> str:
    """The semaphore's script with a clock of the test's own."""
    return "\n".join(
        [clock, *((LUA / f"{part}.lua").read_text() for part in ("semaphore_at_once", "semaphore_rules", "semaphore"))]
    )


def change_text(clock: str) -> str:
    """The script that changes a semaphore, with a clock of the test's own."""
    return "\n".join([clock, *((LUA / f"{part}.lua").read_text() for part in ("semaphore_rules", "semaphore_change"))])


def keys_of(name: str) -> list[str]:
    """The keys of the semaphore `name`, as the script takes them."""
    prefix = f"steindamm:{{{name}}}:semaphore"
    return [prefix, *(f"{prefix}:{part}" for part in PARTS)]


@dataclass
class Kind:
    """One kind of semaphore: sync or async, in memory, on Valkey or on the cluster."""

    asynchronous: bool
    connection: str | None
    admins: list[redis.Redis]

    def __call__(self, name: str | None = None, **settings: Any) -> Any:
        """A semaphore; without a name, one that nobody else has."""
        kind = AsyncSemaphore if self.asynchronous else SyncSemaphore
        return kind(name=name or fresh_name(), connection=self.connection, **settings)

    @property
    def local(self) -> bool:
        return self.connection is None

    def keys(self, name: str) -> list[bytes]:
        """The keys of the semaphore `name`."""
        pattern = f"steindamm:{{{name}}}:*"
        return [key for admin in self.admins for key in admin.scan_iter(pattern, count=1000)]

    def node(self, name: str) -> redis.Redis:
        """The server that holds the semaphore `name`."""
        for admin in self.admins:
            with suppress(redis.exceptions.ResponseError):
                admin.exists(keys_of(name)[0])
                return admin
        raise AssertionError("no node holds it")

    def state(self, name: str) -> dict[str, float]:
        """What the server remembers of the semaphore `name`."""
        packed = self.node(name).get(keys_of(name)[0])
        if not packed:
            return dict.fromkeys(META, 0.0)
        return dict(zip(META, STATE.unpack(packed[: STATE.size]), strict=True))


def fresh_name() -> str:
    """A name that no other test has."""
    return f"semaphore-{next(NUMBERS)}"


async def held(semaphore: Any) -> int:
    """How many slots are taken for longer than a moment, as a renewal under way may take one that was given back."""
    taken = await _taken(semaphore)
    if taken:
        await asyncio.sleep(0.2)
        taken = await _taken(semaphore)
    return taken


async def _taken(semaphore: Any) -> int:
    """How many slots are taken now, found out by taking the others."""
    taken = []
    while (permit := await call(semaphore.try_acquire)) is not None:
        taken.append(permit)
    for permit in taken:
        await call(semaphore.release, permit)
    return int(semaphore.settings.capacity) - len(taken)


async def until(condition: Callable[[], bool], patience: float = 10.0) -> None:
    """Wait for what must become true soon."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.002)


async def within(semaphore: Any, block: Any) -> Any:
    """Run a function of the permit in a block of the semaphore."""
    if isinstance(semaphore, AsyncSemaphore):
        async with semaphore as permit:
            return block(permit)

    def run() -> Any:
        with semaphore as permit:
            return block(permit)

    return await call(run)
