"""What is seen while the demo runs: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from steindamm.demo.picture import picture
from steindamm.demo.plan import Plan
from steindamm.demo.progress import Progress
from steindamm.demo.queues import QUEUES

LINE_SECONDS = 1.0
WIDEST = 100
UNTHROTTLED_SECONDS = 2.0


class Display(Protocol):
    """What the run tells."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def step(self, text: str) -> None:
        """Something begins."""

    def show(self, progress: Progress) -> None:
        """The jobs have come so far."""


def display_for(console: Console, plan: Plan) -> Display:
    """The display that fits where the output goes."""
    drawable = console.is_terminal and not console.is_dumb_terminal and not console.options.ascii_only
    return LiveDisplay(console, plan) if drawable else PlainDisplay(console, plan)


def title(plan: Plan) -> str:
    """What is shown, in a line."""
    how = "with steindamm" if plan.throttled else "without steindamm"
    return f"{plan.jobs} jobs, {workers_text(plan)}, an API that allows {plan.limit_text}: {how}"


def workers_text(plan: Plan) -> str:
    """Such as ``2 Celery workers``."""
    return f"{plan.workers} {QUEUES[plan.queue].title} worker{'s' if plan.workers > 1 else ''}"


class PlainDisplay:
    """A line for every step, and one a second for the jobs."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._began = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> Self:
        self._console.print(title(self._plan), soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def step(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def show(self, progress: Progress) -> None:
        """Print it if the last line is a second old, or there will be no other."""
        if not progress.complete and time.monotonic() < self._last + LINE_SECONDS:
            return
        self._last = time.monotonic()
        rate, limit = self._plan.rate_text(progress.rate_now, digits=1), self._plan.limit_text
        self._print(
            f"waiting {progress.waiting:>4}  running {progress.running:>3}  done {progress.done:>4}"
            f"  rate now {rate} of {limit}  429s {progress.refused}"
        )

    def _print(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", soft_wrap=True)


class LiveDisplay:
    """The counts and the picture, redrawn in place."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._spinner = Spinner("dots", style="cyan")
        self._progress: Progress | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._console.print(Text(title(self._plan), "bold"))
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def step(self, text: str) -> None:
        """Show what is begun, beneath the jobs once there are any."""
        self._spinner.update(text=text)
        self._redraw()

    def show(self, progress: Progress) -> None:
        """Redraw."""
        self._progress = progress
        self._redraw()

    def _redraw(self) -> None:
        parts: list[Padding | Group] = [Padding(self._spinner, (1, 1))]
        if self._progress:
            parts = [Padding(self._jobs(self._progress), (1, 1)), Padding(self._picture(self._progress), (0, 1))]
        self._live.update(Group(*parts), refresh=True)

    @property
    def _width(self) -> int:
        return min(self._console.width, WIDEST) - 2

    def _jobs(self, progress: Progress) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right", min_width=6)
        table.add_column()
        room = max(10, self._width - 26)
        for name, number, style in (
            ("waiting", progress.waiting, "yellow"),
            ("running", progress.running, "cyan"),
            ("done", progress.done, "green"),
        ):
            table.add_row(name, Text(str(number), "bold"), meter(number / self._plan.jobs, room, style))
        share = progress.rate_now * self._plan.limit.spacing
        rate = self._plan.rate_text(progress.rate_now, digits=1)
        table.add_row("rate now", Text(rate, "bold"), f"of {self._plan.limit_text} ({share:.0%})")
        refused = Text(str(progress.refused), "bold red" if progress.refused else "bold green")
        table.add_row("429s", refused, f"of {len(progress.calls)} calls")
        return table

    def _picture(self, progress: Progress) -> Text:
        seconds = self._plan.seconds if self._plan.throttled else UNTHROTTLED_SECONDS
        if progress.calls:
            seconds = max(seconds, progress.now - progress.calls[0].at)
        return picture(self._plan, progress.calls, seconds, self._width)


def meter(share: float, width: int, style: str) -> Text:
    """A bar as long as a share of the width."""
    filled = round(share * width)
    return Text.assemble(("━" * filled, style), ("━" * (width - filled), "bright_black"))
