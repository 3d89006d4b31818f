"""throttled-py: one limiter, a key a name."""

from __future__ import annotations

from functools import cache
from typing import Any

from throttled import Throttled, per_min, per_sec
from throttled.store import MemoryStore, RedisStore

PLENTY = 10_000_000


@cache
def limiter(url: str) -> Throttled:
    store = RedisStore(url) if url else MemoryStore(options={"MAX_SIZE": PLENTY})
    return Throttled(using="token_bucket", quota=per_min(5) if url else per_sec(5), store=store)


def bucket(name: str, url: str) -> Any:
    limiter(url).limit(name)
