"""Semaphores of every kind, asked in one way: sync ones on threads, async ones directly."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from struct import Struct

NUMBERS = count(1)
LUA = Path(__file__).parents[2] / "lua"
STATE = Struct("<16d")
TEST_CLOCK = "local function now_us() return tonumber(KEYS[6]) end"


def script_text(clock: str) -> str:
    """The semaphore's script with a clock of the test's own."""
    return "\n".join([clock, *((LUA / f"{part}.lua").read_text() for part in ("semaphore_rules", "semaphore"))])


def keys_of(name: str) -> list[str]:
    """The keys of the semaphore `name`, as the script takes them."""
    prefix = f"steindamm:{{{name}}}:semaphore"
    return [prefix, *(f"{prefix}:{part}" for part in ("leases", "listening", "away", "present"))]
