"""The process of one contender: reads orders from its input, one JSON object a line, and answers each.

It is started by `benchmarks.support.crew`. The command line names the function that makes the limiter, as in
``peers.limits:fixed_window``, and its arguments as JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.support.use import Use, in_tasks, in_threads, settle


def sync_answer(use: Use, order: dict[str, Any]) -> Any:
    """Carry out an order with threads."""
    settle()
    if order["what"] == "calls":
        return use.calls(order["times"], order["clock"])
    return in_threads(order["count"], _job(use, order))


async def async_answer(use: Use, order: dict[str, Any]) -> Any:
    """Carry out an order with tasks."""
    settle()
    if order["what"] == "calls":
        return await use.calls(order["times"], order["clock"])
    return await in_tasks(order["count"], _job(use, order))


def _job(use: Use, order: dict[str, Any]) -> Callable[[], Any]:
    end = max(order["start"], time.monotonic()) + order["seconds"]
    if order["what"] == "until":
        return lambda: use.until(end)
    return lambda: use.record(end, order["hold"])


def _say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def _wait_for_start(order: dict[str, Any]) -> float:
    return max(0.0, order.get("start", 0.0) - time.monotonic())


def serve_sync(use: Use) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        time.sleep(_wait_for_start(order))
        _say(sync_answer(use, order))


async def serve_async(make: Callable[[], Use]) -> None:
    use = make()
    _say("ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        await asyncio.sleep(_wait_for_start(order))
        _say(await async_answer(use, order))


def main(place: str, arguments: str) -> None:
    module, _, function = place.partition(":")
    maker = getattr(importlib.import_module(f"benchmarks.{module}"), function)

    def make() -> Use:
        return maker(**json.loads(arguments))

    if function.startswith("async_"):
        asyncio.run(serve_async(make))
    else:
        use = make()
        _say("ready")
        serve_sync(use)


if __name__ == "__main__":
    main(*sys.argv[1:])
