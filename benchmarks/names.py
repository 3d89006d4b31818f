"""Uses a limiter of so many names once, in a process of its own, and tells what they take; for `benchmarks.memory`.

Started with the function that uses one name, how many names, and the server's URL (empty for memory). Prints
three numbers, bytes a name in this process: with the limiter objects, without them, and after all is idle.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

IDLE_AFTER = 1.5
"""Seconds; the peers' limits are full again, and forgotten, within one."""
LOOKING = 3.0
"""Seconds in which somebody asks now and then, so that what is idle can be found."""


def name_of(number: int) -> str:
    return f"customer-{number:07d}"


def grown(names: int, base: int) -> float:
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - base) / names


def main(place: str, names: int, url: str) -> None:
    module, _, function = place.partition(":")
    use: Callable[[str, str], Any] = getattr(importlib.import_module(f"benchmarks.names_of.{module}"), function)
    kept: list[Any] = [None] * names
    use("first", url)
    gc.collect()
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]
    for number in range(names):
        kept[number] = use(name_of(number), url)
    with_objects = grown(names, base)
    print(json.dumps("used"), flush=True)
    sys.stdin.readline()
    kept.clear()
    without = grown(names, base)
    time.sleep(IDLE_AFTER)
    end = time.monotonic() + LOOKING
    while not url and time.monotonic() < end:
        use("first", url)
        time.sleep(0.01)
    print(json.dumps([with_objects, without, grown(names, base)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
