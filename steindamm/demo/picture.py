"""A picture of the starts at the API, against the limit, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from steindamm.demo.calls import Call
from steindamm.demo.figures import Bar, bars
from steindamm.demo.plan import Plan

SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 15.0, 30.0)
MINUTES = (60.0, 120.0, 300.0, 600.0, 1_800.0)
HOURS = (3_600.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0)
INTERVALS = (*SECONDS, *MINUTES, *HOURS)
CALLS_A_BAR = 5.0
FEWEST_BARS = 8
NARROWEST_BAR = 2
WIDEST_BAR = 4
HEADROOM = 1.3
ROWS = 9
AXIS = 9
TICK_WIDTH = 12

ALLOWED, REFUSED, LINE, FAINT = "green", "red", "bold yellow", "dim"


@dataclass(frozen=True)
class Signs:
    """The characters that it is drawn with; ``levels`` are from an empty cell to a full one."""

    levels: str
    refused: str
    line: str
    corner: str
    floor: str


BLOCKS = Signs(" ▁▂▃▄▅▆▇█", "▒", "▁", "└", "─")
ASCII = Signs("    ####", "x", "_", "+", "-")


@dataclass(frozen=True)
class Frame:
    """Where things are in the picture.

    Parameters:
        interval: Seconds that a bar stands for.
        count: Number of bars.
        bar_width: Characters from one bar to the next.
        calls_a_row: Calls that fill a bar by one row.
        limit_row: The row, from below, on whose lower edge the limit lies.
    """

    interval: float
    count: int
    bar_width: int
    calls_a_row: float
    limit_row: int


def picture(plan: Plan, calls: Sequence[Call], seconds: float, width: int, *, ascii_only: bool = False) -> Text:
    """Starts per interval as bars, the limit as a line.

    Parameters:
        plan: Names the limit.
        calls: The API's log.
        seconds: The time that the picture has room for.
        width: Characters.
        ascii_only: Draw with what every terminal has.
    """
    signs = ASCII if ascii_only else BLOCKS
    half_a_start = min(plan.limit.spacing, 1.0) / 2
    begin = calls[0].at - half_a_start if calls else 0.0
    interval, count = _intervals(plan, seconds + half_a_start, width - AXIS)
    counted = bars(calls, begin, interval, count)
    frame = _frame(plan, counted, interval, width - AXIS)
    text = Text(no_wrap=True)
    for row in reversed(range(ROWS)):
        text.append(_label(plan, frame, row).rjust(AXIS - 2) + "  ", FAINT)
        for bar in counted:
            _cell(text, bar, row, frame, signs)
        text.append("\n")
    _time_axis(text, frame, signs)
    _legend(text, plan, frame, signs)
    return text


def _intervals(plan: Plan, seconds: float, width: int) -> tuple[float, int]:
    """The length and number of intervals: short ones, yet long enough for some calls, best a whole number of them."""
    room = max(FEWEST_BARS, width // NARROWEST_BAR)
    fitting = [interval for interval in INTERVALS if seconds / interval <= room] or [seconds / room]
    telling = [
        interval
        for interval in fitting
        if interval >= CALLS_A_BAR * plan.limit.spacing and seconds / interval >= FEWEST_BARS
    ]
    even = [interval for interval in telling if round(interval / plan.limit.spacing, 6).is_integer()]
    interval = (even or telling or fitting)[0]
    return interval, max(1, math.ceil(round(seconds / interval, 6)))


def _frame(plan: Plan, counted: Sequence[Bar], interval: float, width: int) -> Frame:
    limit = interval / plan.limit.spacing
    peak = max(bar.allowed + bar.refused for bar in counted)
    limit_row = max(1, min(ROWS - 1, int(ROWS * limit / max(peak, limit * HEADROOM))))
    calls_a_row = max(limit / limit_row, peak / ROWS)
    return Frame(interval, len(counted), min(WIDEST_BAR, width // len(counted)), calls_a_row, limit_row)


def _label(plan: Plan, frame: Frame, row: int) -> str:
    if row == frame.limit_row:
        return plan.limit_text
    if row == ROWS - 1 and row > frame.limit_row + 1:
        return plan.rate_text(ROWS * frame.calls_a_row / frame.interval, digits=0)
    return ""


def _cell(text: Text, bar: Bar, row: int, frame: Frame, signs: Signs) -> None:
    """One row of one bar, and the gap beside it."""
    allowed = min(1.0, max(0.0, bar.allowed / frame.calls_a_row - row))
    total = min(1.0, max(0.0, (bar.allowed + bar.refused) / frame.calls_a_row - row))
    body = max(1, frame.bar_width - 1)
    gap = frame.bar_width - body
    empty, style = (signs.line, LINE) if row == frame.limit_row else (" ", "")
    if total - allowed >= max(allowed, 0.5):
        text.append(signs.refused * body, REFUSED)
    elif level := math.ceil(round(allowed * (len(signs.levels) - 1), 3)):
        text.append(signs.levels[level] * body, ALLOWED)
    else:
        text.append(empty * body, style)
    text.append(empty * gap, style)


def _time_axis(text: Text, frame: Frame, signs: Signs) -> None:
    width = frame.count * frame.bar_width
    text.append("0".rjust(AXIS - 2) + " " + signs.corner + signs.floor * width + "\n", FAINT)
    step = next(
        (step for step in INTERVALS if step / frame.interval * frame.bar_width >= TICK_WIDTH), frame.interval * width
    )
    line = ""
    for tick in range(int(frame.count * frame.interval / step) + 1):
        place = round(tick * step / frame.interval * frame.bar_width)
        label = f"{tick * step:g}" + (" s" if tick == 0 else "")
        if place + len(label) <= width + 1:
            line = line.ljust(place) + label
    text.append(" " * AXIS + line + "\n", FAINT)


def _legend(text: Text, plan: Plan, frame: Frame, signs: Signs) -> None:
    text.append(" " * AXIS)
    text.append(signs.levels[-1] * 2, ALLOWED)
    text.append(" answered 200   ", FAINT)
    text.append(signs.refused * 2, REFUSED)
    text.append(" answered 429   ", FAINT)
    text.append(signs.line * 2, LINE)
    text.append(f" {plan.limit_text}   one bar: {frame.interval:g} s", FAINT)
