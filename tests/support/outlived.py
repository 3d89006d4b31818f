"""A process whose event loop is closed in the middle of a call, and that asks again on another.

``python -m support.outlived URL``. redis-py's connections complain of a loop that is closed as they are collected:
these end with the process.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import redis.asyncio

from steindamm import AsyncTokenBucket


def outlive(url: str) -> None:
    """Let such a process come to its end."""
    command = [sys.executable, "-m", "support.outlived", url]
    subprocess.run(command, cwd=Path(__file__).parents[1], timeout=100, check=True)


def close_within_a_call(bucket: AsyncTokenBucket) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(bucket.acquire())
    acquiring = bucket.acquire()
    loop.call_soon(acquiring.send, None)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    acquiring.close()


if __name__ == "__main__":
    (url,) = sys.argv[1:]
    bucket = AsyncTokenBucket("outlives", capacity=10, connection=redis.asyncio.Redis.from_url(url))
    close_within_a_call(bucket)
    assert asyncio.run(bucket.try_acquire()) is not None
