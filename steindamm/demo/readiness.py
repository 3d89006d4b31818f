"""Workers that tell the demo when they can take jobs."""

from __future__ import annotations

from typing import cast

import redis

KEY = "steindamm-demo:ready"


def say_ready(valkey: str) -> None:
    """Called once by each worker."""
    with redis.Redis.from_url(valkey) as client:
        client.incr(KEY)


def workers_ready(valkey: str) -> int:
    """How many have called."""
    with redis.Redis.from_url(valkey) as client:
        return int(cast("bytes | None", client.get(KEY)) or 0)
