"""Processes of many tasks that take several limits at once in random orders."""

from __future__ import annotations

from support.crowd import CAPACITY, RATE, crowd
from support.servers import Server

SECONDS = 3.0


def test_all_come_through_the_tightest_limit_holds_and_a_request_is_one_call(valkey: Server) -> None:
    before = scripts_run(valkey)
    outcome = crowd(valkey.url, SECONDS, processes=2, tasks=50)
    assert outcome.starts[-1] - outcome.starts[0] < SECONDS + 5
    assert len(outcome.starts) > 0.4 * RATE * SECONDS
    assert outcome.most_in(1.0) <= 1.1 * (CAPACITY + RATE)
    releases = len(outcome.starts)
    assert scripts_run(valkey) - before <= outcome.asked + releases + 100  # and renewals


def scripts_run(server: Server) -> int:
    stats = server.admin.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
