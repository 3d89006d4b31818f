"""What the API's log says, in numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from steindamm.demo.calls import Call


class Bar(NamedTuple):
    """The calls of one interval, by answer."""

    allowed: int
    refused: int


def span(calls: Sequence[Call]) -> float:
    """Seconds from the first call to the last."""
    return calls[-1].at - calls[0].at if calls else 0.0


def rate(calls: Sequence[Call]) -> float | None:
    """Calls a second: all but the first, over the time from the first to the last.

    The first marks the start of the time and is not counted in it: ``n`` calls evenly spaced by ``1/r``
    take ``(n - 1)/r``, so that exactly the limit gives exactly 100 %. The limiter's capacity is 1: that first
    call is all that it lets start at once. None where there is no time to measure.
    """
    return (len(calls) - 1) / span(calls) if span(calls) > 0 else None


def rate_now(calls: Sequence[Call], now: float, window: float) -> float:
    """Calls a second in the window that ends now, or since the first call if that is less."""
    if not calls or now <= calls[0].at:
        return 0.0
    begin = now - window
    recent = len(calls) - bisect_right(calls, begin, key=lambda call: call.at)
    return recent / min(window, now - calls[0].at) if calls[0].at < begin else (len(calls) - 1) / (now - calls[0].at)


def most_in(calls: Sequence[Call], window: float) -> int:
    """The largest number of calls within any window of so many seconds."""
    most, first = 0, 0
    for last, call in enumerate(calls):
        while call.at - calls[first].at > window:
            first += 1
        most = max(most, last - first + 1)
    return most


def bars(calls: Sequence[Call], begin: float, interval: float, count: int) -> list[Bar]:
    """The calls of each of so many intervals, the first of which begins at ``begin``."""
    allowed, refused = [0] * count, [0] * count
    for call in calls:
        index = min(count - 1, max(0, int((call.at - begin) / interval)))
        (allowed if call.allowed else refused)[index] += 1
    return [Bar(*both) for both in zip(allowed, refused, strict=True)]
