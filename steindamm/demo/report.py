"""How the run went: a table of what was measured, and the picture."""

from __future__ import annotations

from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steindamm.demo.display import WIDEST
from steindamm.demo.figures import most_in, rate, span
from steindamm.demo.picture import picture
from steindamm.demo.plan import Plan
from steindamm.demo.progress import Progress

GOOD_RATE = 0.98
MANY = 2
MARKS = {True: "✓", False: "✗", None: ""}
ASCII_MARKS = {True: "ok", False: "no", None: ""}
STYLES = {True: "bold green", False: "bold red", None: "bold"}


class Line(NamedTuple):
    """One line of the table; ``good`` is None where nothing is expected."""

    what: str
    measured: str
    expected: str
    good: bool | None


def report(console: Console, progress: Progress) -> None:
    """Print it."""
    plan = progress.plan
    console.print(_table(progress, ascii_only=console.options.ascii_only))
    width = min(console.width, WIDEST)
    console.print(picture(plan, progress.calls, span(progress.calls), width, ascii_only=console.options.ascii_only))
    console.print()
    console.print(Text(_remark(plan), "dim"), width=width)


def _table(progress: Progress, *, ascii_only: bool) -> Table:
    table = Table(box=box.ASCII if ascii_only else box.ROUNDED)
    table.add_column()
    table.add_column("this run")
    table.add_column("should be")
    table.add_column()
    marks = ASCII_MARKS if ascii_only else MARKS
    for line in _lines(progress):
        style = STYLES[line.good]
        table.add_row(line.what, Text(line.measured, style), Text(line.expected, "dim"), Text(marks[line.good], style))
    return table


def _lines(progress: Progress) -> list[Line]:
    plan, calls = progress.plan, progress.calls
    done = progress.done - progress.failed
    return [
        Line("jobs done", f"{done} of {plan.jobs}", f"{plan.jobs}", done == plan.jobs),
        Line("jobs run twice", f"{progress.repeated}", "0", not progress.repeated),
        _refusals(progress),
        _rate(progress),
        _window(progress),
        Line("first call to last", f"{span(calls):.2f} s", f"{plan.seconds:.2f} s at the limit", None),
    ]


def _refusals(progress: Progress) -> Line:
    share = progress.refused / max(1, len(progress.calls))
    measured = f"{progress.refused}" + (f" ({share:.0%} of the calls)" if progress.refused else "")
    return Line("answers of 429", measured, "0", not progress.refused)


def _rate(progress: Progress) -> Line:
    plan, measured = progress.plan, rate(progress.calls)
    if measured is None:
        return Line("rate", "too few calls to tell", "", None)
    share = measured * plan.limit.spacing
    of_limit = f"{share:.1%}" if share < MANY else f"{share:.0f} times the limit"
    text = f"{plan.rate_text(measured, digits=2)} ({of_limit})"
    return Line(
        "rate", text, f"at least {GOOD_RATE:.0%} of {plan.limit_text}", share >= GOOD_RATE if plan.throttled else None
    )


def _window(progress: Progress) -> Line:
    plan = progress.plan
    seconds = plan.limit.period
    bound = int(plan.limit.amount + plan.burst)
    most = most_in(progress.calls, seconds)
    return Line(f"most within {seconds:g} s", f"{most}", f"at most {bound}", most <= bound)


def _remark(plan: Plan) -> str:
    limit = f"The API allows {plan.limit_text} and {plan.burst} calls at once after a pause; it answers 429 beyond."
    measured = "The rate is all calls but the first, over the time from the first to the last."
    other = "The same without steindamm: --unthrottled" if plan.throttled else "With steindamm: without --unthrottled"
    return f"{limit} {measured}\n{other}"
