"""aiolimiter: a limiter object a name."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from aiolimiter import AsyncLimiter


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def bucket(_name: str, _url: str) -> Any:
    limiter = AsyncLimiter(5, 1)
    loop().run_until_complete(limiter.acquire())
    return limiter
