"""The tables that a benchmark prints and saves."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = (
    "redis", "hiredis", "limits", "throttled-py", "pyrate-limiter", "aiolimiter", "async-redis-rate-limiters",
    "celery", "celery-heimdall", "dramatiq", "arq",
)  # fmt: skip

Cell = str | float | int | list[float] | None
"""A figure, a text, or the least, median and most of several rounds."""


@dataclass
class Table:
    """One table.

    Parameters:
        name: What the documentation calls it by.
        title: What it shows.
        columns: The names of the figures.
        rows: The figures by the row's name.
    """

    name: str
    title: str
    columns: list[str]
    rows: dict[str, list[Cell]] = field(default_factory=dict)

    def add(self, name: str, *cells: Cell) -> None:
        self.rows[name] = [_rounded(cell) for cell in cells]

    def sort(self, column: int = 0, *, descending: bool = False) -> None:
        """Best first."""
        self.rows = dict(sorted(self.rows.items(), key=lambda row: middle(row[1][column]), reverse=descending))

    def markdown(self) -> str:
        """The table as the documentation shows it, our rows in bold."""
        head = f"| | {' | '.join(self.columns)} |"
        lines = [head, "| --- |" + " ---: |" * len(self.columns)]
        for name, cells in self.rows.items():
            shown = f"**{name}**" if is_ours(name) else name
            lines.append(f"| {shown} | {' | '.join(map(text, cells))} |")
        return "\n".join(lines)


def is_ours(name: str) -> bool:
    """Whether a row is about the code of this project."""
    return name.startswith("steindamm") and "0.11.1" not in name


def middle(cell: Cell) -> float:
    """The figure to sort by: a median, or the number itself."""
    if isinstance(cell, list):
        return cell[1]
    return float("inf") if cell is None or isinstance(cell, str) else cell


def text(cell: Cell) -> str:
    """As people read it: the median first."""
    if cell is None:
        return "-"
    if isinstance(cell, list):
        least, median, most = map(_digits, cell)
        return f"{median} ({least}-{most})"
    return cell if isinstance(cell, str) else _digits(cell)


def _digits(number: float) -> str:
    if abs(number) >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"


def _rounded(cell: Cell) -> Cell:
    if isinstance(cell, list):
        return [float(f"{number:.5g}") for number in cell]
    return float(f"{cell:.5g}") if isinstance(cell, float) else cell


def run(benchmark: str, measure: Callable[[bool], tuple[list[Table], str]]) -> None:
    """Measure, print and save.

    Parameters:
        benchmark: The name of the file.
        measure: Is told whether to be quick; gives the tables, and the server they were measured on.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    tables, server = measure(options.quick)
    for table in tables:
        print(f"\n{table.title}\n\n{table.markdown()}")
    if not options.no_save:
        save(benchmark, tables, quick=options.quick, server=server)


def save(benchmark: str, tables: list[Table], **facts: Any) -> None:
    """Keep the figures with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "benchmark": benchmark,
        "when": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        "packages": _versions(),
        **facts,
        "tables": [asdict(table) for table in tables],
    }
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(kept, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
