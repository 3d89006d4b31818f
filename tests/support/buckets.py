"""Token buckets of every kind, asked in one way: sync ones on threads, async ones directly."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from struct import Struct
from typing import Any

import redis

from steindamm import AsyncTokenBucket, SyncTokenBucket
from steindamm.backends.redis.scripts import BUCKET, BUCKET_ALONE
from steindamm.rules.bucket import BucketState, BucketTerms, Decision, Request, Verdict
from steindamm.rules.deciding import decide

THREADS = ThreadPoolExecutor(64, thread_name_prefix="asker")
NUMBERS = count(1)
LUA = Path(__file__).parents[2] / "lua"
STATE = Struct("<7d")
LIVE = Struct("<18d")
LIVE_FIELDS = (
    "changed", "time", "since", "span", "share", "recovery", "cut_at", "speed",
    "capacity", "amount", "step", "anchor", "set_at", "line", "pace", "grid",
    "born", "recalled",
)  # fmt: skip
TEST_CLOCK = "local function now_us() return tonumber(KEYS[2]) end"


async def call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a limiter's method, on a thread if it is a sync one."""
    if inspect.iscoroutinefunction(method):
        return await method(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(THREADS, lambda: method(*args, **kwargs))


async def drained(bucket: Any) -> int:
    """How many start now."""
    count = 0
    while await call(bucket.try_acquire):
        count += 1
    return count


@dataclass
class Kind:
    """One kind of token bucket: sync or async, in memory, on Valkey or on the cluster."""

    asynchronous: bool
    connection: str | None
    admins: list[redis.Redis]

    def __call__(self, name: str | None = None, **settings: Any) -> Any:
        """A bucket; without a name, one that nobody else has."""
        kind = AsyncTokenBucket if self.asynchronous else SyncTokenBucket
        name = name or f"bucket-{next(NUMBERS)}"
        return kind(name=name, connection=self.connection, **settings)

    @property
    def local(self) -> bool:
        return self.connection is None

    def keys(self, name: str) -> dict[bytes, redis.Redis]:
        """The keys of the limiter `name`, each with the server that holds it."""
        pattern = f"steindamm:{{{name}}}:*"
        return {key: admin for admin in self.admins for key in admin.scan_iter(pattern, count=1000)}


class FakeClock:
    """A memory's clock, in seconds, which the test sets."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def script_text(clock: str) -> str:
    """The bucket's script with a clock of the test's own."""
    return _assembled(clock, *BUCKET_ALONE)


def change_text(clock: str) -> str:
    """The script that changes a bucket, with a clock of the test's own."""
    return _assembled(clock, *BUCKET, "bucket_change")


def _assembled(clock: str, *parts: str) -> str:
    return "\n".join([clock, *((LUA / f"{part}.lua").read_text() for part in parts)])


class PythonHome:
    """The rules in Python, at times that the test sets."""

    def __init__(self, terms: BucketTerms) -> None:
        self.terms = terms
        self.state: BucketState | None = None

    def decide(self, now: float, request: Request) -> Decision:
        if self.state is None:
            self.state = BucketState(self.terms, now)
        return decide(self.terms, self.state, now, request)


class LuaHome:
    """The rules in Lua on a real server, at times that the test sets."""

    def __init__(self, terms: BucketTerms, admin: redis.Redis) -> None:
        self.terms = terms
        self._key = f"steindamm:{{lua-{next(NUMBERS)}}}:bucket"
        self._script = admin.register_script(script_text(TEST_CLOCK))

    def decide(self, now: float, request: Request) -> Decision:
        packed = Struct("<6d").pack(*self.terms), Struct("<5d").pack(*request)
        verdict, wait, turn, *changed = self._script(keys=[self._key, int(now)], args=packed)
        return Decision(Verdict(verdict), wait if wait >= 0 else float("inf"), turn, *changed)
