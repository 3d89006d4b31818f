"""Bytes a name: what a limiter's state takes in Redis and in the process, and what is left when it is idle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.support.crew import PUBLISHED, ROOT
from benchmarks.support.servers import server, version
from benchmarks.support.tables import Table, run
from tests.support.servers import Server

PLACES = {
    "steindamm, token bucket": "steindamm:bucket",
    "steindamm, semaphore": "steindamm:semaphore",
    "limits, fixed window": "limits:fixed_window",
    "throttled-py, token bucket": "throttled:bucket",
    "aiolimiter": "aiolimiter:bucket",
    "pyrate-limiter, token bucket": "pyrate:bucket",
    "dramatiq, bucket": "dramatiq:bucket",
    "dramatiq, concurrent": "dramatiq:concurrent",
}
OURS = ["steindamm, token bucket", "steindamm, semaphore"]
THEIRS = ["steindamm 0.11.1, token bucket", "steindamm 0.11.1, semaphore"]
BOTH = [*OURS, *THEIRS, "limits, fixed window", "throttled-py, token bucket", "pyrate-limiter, token bucket"]
LOCAL = [*BOTH, "aiolimiter"]
REDIS = [*BOTH, "dramatiq, bucket", "dramatiq, concurrent"]


def shown(rows: list[str]) -> list[str]:
    """Those that can take part."""
    return [who for who in rows if PUBLISHED or who not in THEIRS]


@contextmanager
def used(who: str, names: int, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process in which so many names are in use."""
    is_published = "0.11.1" in who
    path = [PUBLISHED, str(ROOT)] if is_published and PUBLISHED else [str(ROOT)]
    command = [sys.executable, "-P", "-m", "benchmarks.names", PLACES[who.replace(" 0.11.1", "")], str(names), url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)
    assert process.stdout
    if not process.stdout.readline():
        raise RuntimeError(f"the process of {who!r} has ended; its error stands above")
    yield process
    process.kill()
    process.wait()


def in_process(who: str, names: int) -> list[float]:
    """Bytes a name: with the limiter objects, without them, and when idle."""
    with used(who, names, "") as process:
        assert process.stdin
        assert process.stdout
        print(file=process.stdin, flush=True)
        return [float(figure) for figure in json.loads(process.stdout.readline())]


def on_redis(running: Server, who: str, names: int) -> float:
    """Bytes a name that MEMORY USAGE tells of its keys."""
    admin = running.admin
    admin.flushall()
    with used(who, names, running.url):
        return sum(admin.memory_usage(key) or 0 for key in admin.scan_iter("*customer-*", count=1_000)) / names


def measure(quick: bool) -> tuple[list[Table], str]:  # noqa: FBT001
    names = 1_000 if quick else 3_000
    columns = ["in use, with its limiter object", "in use, without", "when idle"]
    local = Table("memory-local", "In memory: bytes a name", columns)
    remote = Table("memory-redis", "On Redis: bytes a name", ["in use"])
    with server() as running:
        for who in shown(LOCAL):
            local.add(who, *in_process(who, names))
        for who in shown(REDIS):
            remote.add(who, on_redis(running, who, names))
        local.sort()
        remote.sort()
        return [local, remote], version(running)


if __name__ == "__main__":
    run("memory", measure)
