"""The table that people see: a row a fault, zeros where zeros belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """What a fault did.

    Parameters:
        fault: Its name.
        calls: Calls, or jobs.
        lost: Those that never came to anything.
        doubled: Jobs that ran again, and no kill explains it; of plain callers, errors that nobody expects.
        again: Jobs that the queue delivered again after a kill; of plain callers, how often they were told that
            the limiter is unavailable.
        starts_over: Starts by which the fullest window exceeds the limit.
        slots_over: Slots that were held at once beyond the capacity.
        bound: Starts, and slots, by which they may be exceeded by this fault.
        recovery: Seconds until starts, and holds, came at their usual rate again; None where the work was done before.
        late: Seconds by which the machine itself was late, which is allowed for.
        aside: Jobs that the queue's transport lost on their way to a worker that was killed; of plain callers, those
            who started after one that had asked later.
        most_aside: How many of them there may be; None for any number.
    """

    fault: str
    calls: int
    lost: int
    doubled: int
    again: int
    starts_over: float
    slots_over: int
    bound: tuple[float, int]
    recovery: tuple[float | None, float | None]
    late: float
    aside: int = 0
    most_aside: int | None = None

    @property
    def is_right(self) -> bool:
        """Whether all that is promised was kept."""
        starts, slots = self.bound
        is_in_order = self.most_aside is None or self.aside <= self.most_aside
        is_within = self.starts_over <= starts and self.slots_over <= slots
        return not self.lost and not self.doubled and is_within and is_in_order


COMMON = "starts over", "slots over", "recovery", "late"
PLAIN = "fault", "calls", "lost", "surprises", "told", *COMMON, "overtaken"
JOBS = "fault", "jobs", "lost", "doubled by us", "redelivered", *COMMON, "swallowed"


def table(title: str, heads: Sequence[str], rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [list(heads), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    texts = ["  ".join(_aligned(cell, width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([title, *texts])


def _aligned(cell: str, width: int) -> str:
    return cell.ljust(width) if cell[:1].isalpha() else cell.rjust(width)


def cells(row: Row) -> list[str]:
    """A row's texts."""
    starts, slots = row.bound
    return [
        row.fault + ("" if row.is_right else "  <-- WRONG"),
        str(row.calls),
        str(row.lost),
        str(row.doubled),
        str(row.again),
        f"{row.starts_over:.0f}" + (f" of {starts:.0f}" if starts else ""),
        f"{row.slots_over}" + (f" of {slots}" if slots else ""),
        " / ".join("-" if seconds is None else f"{seconds:.1f} s" for seconds in row.recovery),
        f"{row.late:.2f} s",
        str(row.aside),
    ]
