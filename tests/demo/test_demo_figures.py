"""What the demo's API allows, and what its log says in numbers and in a picture."""

from __future__ import annotations

import io
import random

import pytest
from rich.console import Console

from steindamm.demo.allowance import Allowance
from steindamm.demo.calls import Call
from steindamm.demo.display import LiveDisplay
from steindamm.demo.figures import Bar, bars, most_in, rate, rate_now
from steindamm.demo.picture import picture
from steindamm.demo.plan import Plan
from steindamm.demo.progress import Progress
from steindamm.demo.report import report
from steindamm.rate import Rate

PLAN = Plan("celery", jobs=100, limit=Rate.parse("50/s"), workers=2, throttled=True)


def steady(count: int, per_second: float, status: int = 200, begin: float = 3.0) -> list[Call]:
    return [Call(begin + number / per_second, number, status) for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_no_window_holds_more_than_the_burst_and_what_comes_back(seed: int) -> None:
    dice = random.Random(seed)
    times = sorted(dice.uniform(0, 10) for _ in range(1_000))
    allowance = Allowance(per_second=20, burst=5)
    allowed = [Call(at, 0, 200) for at in times if allowance.allows(at)]
    for window in (0.0, 0.05, 0.5, 1.0, 3.0):
        assert most_in(allowed, window) <= 5 + 20 * window + 1e-9
    assert len(allowed) == pytest.approx(205, abs=2)


def test_calls_spaced_at_the_limit_are_all_allowed_with_the_least_burst() -> None:
    allowance = Allowance(per_second=50, burst=2)
    assert all(allowance.allows(call.at) for call in steady(1_000, 50))


@pytest.mark.parametrize(("limit", "burst"), [("50/s", 10), ("100/m", 2), ("1/s", 2), ("1000/s", 200)])
def test_the_api_bears_what_bunches_up_in_a_fifth_of_a_second(limit: str, burst: int) -> None:
    assert Plan("celery", 1, Rate.parse(limit), 1, throttled=True).burst == burst


def test_evenly_spaced_calls_have_exactly_their_rate() -> None:
    assert rate(steady(101, 50)) == pytest.approx(50)
    assert rate_now(steady(101, 50), now=5.0, window=1.0) == pytest.approx(50)
    assert rate_now(steady(11, 50), now=3.2, window=1.0) == pytest.approx(50)


def test_what_was_not_called_has_no_rate() -> None:
    assert rate([]) is None
    assert rate(steady(1, 50)) is None
    assert rate_now([], now=1.0, window=1.0) == 0


def test_bars_count_each_call_once_by_its_answer() -> None:
    calls = [*steady(10, 50), *steady(5, 50, status=429, begin=3.2)]
    assert bars(calls, begin=2.99, interval=0.1, count=3) == [Bar(5, 0), Bar(5, 0), Bar(0, 5)]


@pytest.mark.parametrize("limit", ["50/s", "3/s", "100/m", "1/h", "5000/s"])
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("calls", [0, 1, 30, 700])
def test_the_picture_fits_its_width(limit: str, width: int, calls: int) -> None:
    plan = Plan("celery", jobs=700, limit=Rate.parse(limit), workers=2, throttled=True)
    made = steady(calls, 50)
    lines = picture(plan, made, seconds=plan.seconds, width=width).plain.splitlines()[:-1]
    assert max(map(len, lines)) <= width
    assert any(plan.limit_text in line for line in lines)


def test_calls_at_the_limit_fill_the_picture_up_to_the_line() -> None:
    rows = picture(PLAN, steady(100, 50), seconds=PLAN.seconds, width=80).plain.splitlines()
    line = next(index for index, row in enumerate(rows) if row.strip().startswith("50/s"))
    assert "█" not in rows[line]
    assert "▁" in rows[line]
    assert set(rows[line + 1].strip()) == {"█", " "}


def test_what_is_beyond_the_line_stands_above_it() -> None:
    rows = picture(PLAN, steady(300, 300, status=429), seconds=1.0, width=80).plain.splitlines()
    line = next(index for index, row in enumerate(rows) if row.strip().startswith("50/s"))
    assert "▒" in rows[line]
    assert "▒" in rows[line - 3]


def test_a_terminal_without_blocks_gets_plain_characters() -> None:
    drawn = picture(PLAN, [*steady(50, 50), *steady(50, 50, status=429)], 2.0, 80, ascii_only=True).plain
    assert drawn.isascii()


def test_the_live_display_and_the_report_can_be_drawn_at_every_stage() -> None:
    output = io.TextIOWrapper(io.BytesIO(), "utf-8")
    console = Console(file=output, force_terminal=True, width=80, height=40)
    progress = Progress(PLAN)
    with LiveDisplay(console, PLAN) as display:
        display.step("starting")
        display.show(progress)
        progress = Progress(PLAN, sent=100, calls=steady(50, 50), now=4.1, results=[200] * 48)
        display.show(progress)
        display.step("stopping")
    report(console, progress)
    output.seek(0)
    shown = output.read()
    assert "48 of 100" in shown
    assert "answers of 429" in shown


@pytest.mark.parametrize(
    ("calls", "results", "good"),
    [
        (steady(100, 50), [200] * 100, True),
        (steady(100, 50), [200] * 99, False),
        (steady(100, 50), [200] * 99 + [None], False),
        ([*steady(100, 50), Call(9.0, 7, 200)], [200] * 100, False),
        (steady(100, 50, status=429), [429] * 100, False),
    ],
)
def test_a_run_is_good_if_each_job_is_done_once_and_none_is_refused(
    calls: list[Call], results: list[int | None], good: bool
) -> None:
    assert Progress(PLAN, sent=100, calls=calls, results=results).good is good
