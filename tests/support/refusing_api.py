"""An API that allows half of what its callers' limit says, and tells who is beyond when to come back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from steindamm.demo.calls import Call, read_log

HOST = "127.0.0.1"
OURS, THEIRS, BURST, RETRY_AFTER, JOBS = 50, 25, 10, 2, 150
LIMIT: dict[str, Any] = {"capacity": 1, "refill_frequency": 1 / OURS, "adapt": True}
PATIENCE = 60.0
MOST_REFUSED = 0.05


@contextmanager
def refusing_api() -> Iterator[str]:
    """Its URL; a process of its own."""
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        limits = ["--per-second", str(THEIRS), "--burst", str(BURST), "--retry-after", str(RETRY_AFTER)]
        command = [sys.executable, "-m", "steindamm.demo.api", "--fd", str(fd), *limits]
        process = subprocess.Popen(command, pass_fds=[fd])
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(10)


def call(url: str, job: int) -> None:
    """What a job does; its HTTP client raises on 429."""
    try:
        with urlopen(f"{url}/call/{job}", timeout=30) as answer:
            answer.read()
    except HTTPError as error:
        error.close()
        raise


def calls_of_all(url: str) -> list[Call]:
    """The API's log when all jobs have been answered."""
    end = time.monotonic() + PATIENCE
    calls: list[Call] = []
    while sum(call.allowed for call in calls) < JOBS:
        assert time.monotonic() < end, f"only {len(calls)} calls"
        time.sleep(0.1)
        _, calls = read_log(url)
    return calls


def check(calls: list[Call]) -> None:
    """Each job was answered once, and few calls were refused."""
    answered = Counter(call.job for call in calls if call.allowed)
    assert answered == dict.fromkeys(range(JOBS), 1)
    refused = len(calls) - JOBS
    assert 1 <= refused <= MOST_REFUSED * len(calls)
