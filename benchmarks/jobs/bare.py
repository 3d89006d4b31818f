"""The one call that a limiter on Redis makes for a job at least, made by the job itself."""

from __future__ import annotations

import redis
import redis.asyncio

from benchmarks.jobs.journal import URL, client

NOTHING = "return 1"
KEYS = ["bare"]
call = client.register_script(NOTHING)
acall = redis.asyncio.Redis.from_url(URL).register_script(NOTHING)
