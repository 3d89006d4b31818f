"""What jobs and workers write down: when each job ran, by the server's clock, and how often jobs were delivered."""

from __future__ import annotations

import os

import redis

URL = os.environ.get("STEINDAMM_BENCH_URL", "redis://localhost")
client = redis.Redis.from_url(URL)
RAN, UNLIMITED, DELIVERED, EDGE = "bench:ran", "bench:unlimited", "bench:delivered", "bench:edge"
NOTE = client.register_script(
    "local t = redis.call('TIME'); redis.call('RPUSH', KEYS[1], t[1] .. '.' .. string.format('%06d', t[2]) .. ARGV[1])"
)


def note(where: str, what: str = "") -> None:
    """Write the server's time down, and something to it."""
    NOTE(keys=[where], args=[f" {what}"], client=client)


def times(where: str) -> list[float]:
    """The times that were written down, in order."""
    return sorted(float(line.split()[0]) for line in client.lrange(where, 0, -1))


def delays(where: str) -> list[float]:
    """Seconds from the time that was written with each line to the line's own."""
    pairs = [line.split() for line in client.lrange(where, 0, -1)]
    return sorted(float(ran) - float(sent) for ran, sent in pairs)


def server_time() -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6


def delivered() -> None:
    """A worker was given a job."""
    client.incr(DELIVERED)


def deliveries() -> int:
    return int(client.get(DELIVERED) or 0)
