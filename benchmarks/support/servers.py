"""The server of a benchmark, started by it, and what the server has to do for a use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.servers import Cluster, Server, valkey_binary


@contextmanager
def server() -> Iterator[Server]:
    """A Valkey, or the program that STEINDAMM_BENCH_SERVER names."""
    binary = os.environ.get("STEINDAMM_BENCH_SERVER") or valkey_binary()
    with TemporaryDirectory() as folder, Server(binary, Path(folder)) as running:
        yield running


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Three nodes."""
    with TemporaryDirectory() as folder, Cluster(Path(folder)) as running:
        yield running


def version(running: Server) -> str:
    """What runs, as in ``"valkey 9.1.2"``."""
    info = running.admin.info("server")
    name = info.get("server_name", "redis")
    return f"{name} {info.get('valkey_version', info['redis_version'])}"


@dataclass(frozen=True)
class Load:
    """What one use costs the server.

    Attributes:
        round_trips: Times that something from a client was read.
        commands: Commands, those within scripts among them.
        cpu_us: Microseconds of its processor.
    """

    round_trips: float
    commands: float
    cpu_us: float


def load(running: Server, uses: Callable[[], float]) -> Load:
    """What the server does for each use.

    Parameters:
        running: The server; nobody else uses it meanwhile.
        uses: Makes the uses and tells how many it made.
    """
    before = _counters(running)
    count = uses()
    after = _counters(running)
    trips, commands, cpu = (late - early for late, early in zip(after, before, strict=True))
    return Load((trips - 1) / count, commands / count, cpu / count * 1e6)


def _counters(running: Server) -> tuple[float, float, float]:
    info = running.admin.info("everything")
    commands = sum(
        counts["calls"] for name, counts in info.items() if name.startswith("cmdstat_") and name != "cmdstat_info"
    )
    return info["total_reads_processed"], commands, info["used_cpu_user"] + info["used_cpu_sys"]
