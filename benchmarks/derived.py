"""Tables that are computed from the measured ones: how large a server must be, and what a network adds."""

from __future__ import annotations

from benchmarks.support.tables import Table, middle

WANTED = (1_000, 5_000, 20_000, 100_000)
NETWORKS = {
    "the same machine": 0.0,
    "the same rack": 0.1,
    "the same zone": 0.3,
    "another zone": 1.0,
    "another region": 30.0,
}
"""Milliseconds of a round trip, as data centres have them."""
OURS, SLOT = "steindamm, token bucket", "steindamm, semaphore"


def sizing(known: dict[str, Table]) -> Table:
    """The share of one core that the server needs."""
    alone = known["redis-rate-async"].rows[OURS][4]
    together = known["shared-tasks"].rows["steindamm"][3]
    slot = known["redis-slot-async"].rows[SLOT][4]
    table = Table(
        "sizing", "Cores that Redis needs; more than one means several nodes",
        ["buckets, lone callers", "buckets, 50 callers a process", "semaphores, lone callers"],
    )  # fmt: skip
    for wanted in WANTED:
        shares = [middle(cpu) * wanted / 1e6 for cpu in (alone, together, slot)]
        table.add(f"{wanted:,} a second", *[f"{share:.2g}" for share in shares])
    return table


def latency(known: dict[str, Table]) -> Table:
    """What is measured on the machine itself, and the round trips."""
    table = Table(
        "latency", "Milliseconds, computed from the round trips",
        ["a round trip", "acquire of a bucket", "acquire and release a slot", "a freed slot's next holder starts"],
    )  # fmt: skip
    uses = [(known["redis-rate-sync"].rows[OURS], 1), (known["redis-slot-sync"].rows[SLOT], 2)]
    hand_over = middle(known["hand-over"].rows["steindamm, threads"][1])
    for network, trip in NETWORKS.items():
        own = [middle(row[1]) / 1e3 + trips * trip for row, trips in uses]
        table.add(network, trip, *own, hand_over + trip)
    return table
