"""A process that starts with many buckets of a cluster at once, each of a name of its own.

``python -m support.spread WAY URL PREFIX COUNT``, where the way is sync or async. redis-py's tasks close connections
under each other where so many connect to a cluster at once, and lose some: these end with the process.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from support.buckets import Kind, call


def spread(way: str, url: str, prefix: str, count: int) -> None:
    """Let such a process start with them all."""
    command = [sys.executable, "-m", "support.spread", way, url, prefix, str(count)]
    subprocess.run(command, cwd=Path(__file__).parents[1], timeout=100, check=True)


async def start(way: str, url: str, prefix: str, count: int) -> None:
    buckets = Kind(way == "async", url, [])
    await asyncio.gather(*(call(buckets(f"{prefix}-{number}").acquire) for number in range(count)))


if __name__ == "__main__":
    way, url, prefix, count = sys.argv[1:]
    asyncio.run(start(way, url, prefix, int(count)))
