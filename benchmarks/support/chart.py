"""A chart of several tables: one bar a row, as long as the median of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.support.tables import Cell, Table, is_ours, middle

WIDTH, LABELS, VALUES, GAP = 460, 190, 48, 24
ROW, BAR, TITLE = 19, 11, 30
OURS, THEIRS, BARE, INK, FAINT = "#0b7a75", "#b9c0c8", "#e2e5e9", "#24292f", "#6e7781"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Panel:
    """One table's first figures.

    Parameters:
        table: The table.
        caption: What a bar's length means.
        unit: Written after each figure.
    """

    table: Table
    caption: str
    unit: str = "x"

    @property
    def height(self) -> int:
        return TITLE + 16 + ROW * len(self.table.rows)

    def drawn(self, left: int, top: int) -> list[str]:
        cells = {name: row[0] for name, row in self.table.rows.items()}
        longest = max(map(middle, cells.values()))
        room = WIDTH - LABELS - VALUES
        lines = [
            text(left, top + 13, self.table.title, size=13, weight=600),
            text(left, top + 28, self.caption, size=11, colour=FAINT),
        ]
        for number, (name, cell) in enumerate(cells.items()):
            lines += self._row(left, top + TITLE + 6 + ROW * number, name, cell, room / longest)
        return lines

    def _row(self, left: int, top: int, name: str, cell: Cell, scale: float) -> list[str]:
        colour = OURS if is_ours(name) else THEIRS if not _is_bare(name) else BARE
        length, start, middle_y = middle(cell) * scale, left + LABELS, top + ROW / 2
        weight = 600 if is_ours(name) else 400
        return [
            text(start - 8, middle_y + 4, name, size=11, anchor="end", weight=weight),
            f"<rect x='{start}' y='{middle_y - BAR / 2}' width='{length:.1f}' height='{BAR}' rx='2' fill='{colour}'/>",
            text(start + length + 6, middle_y + 4, f"{middle(cell):.3g}{self.unit}", size=11, weight=weight),
        ]


def _is_bare(name: str) -> bool:
    return name in {"threading.Lock", "asyncio.Lock", "threading.Semaphore", "asyncio.Semaphore", "bare EVALSHA"}


def text(
    x: float, y: float, words: str, *, size: int, anchor: str = "start", weight: int = 400, colour: str = INK
) -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} font-size='{size}' font-weight='{weight}' fill='{colour}'>{escape(words)}</text>"


def chart(panels: Sequence[Panel], columns: int = 2) -> str:
    """The SVG, its panels in rows of so many."""
    drawn: list[str] = []
    top = GAP
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        for number, panel in enumerate(row):
            drawn += panel.drawn(GAP + number * (WIDTH + GAP), top)
        top += max(panel.height for panel in row) + GAP
    width = GAP + columns * (WIDTH + GAP)
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {top}' width='{width}' {FONT}>"
    return "\n".join([head, f"<rect width='{width}' height='{top}' fill='#ffffff'/>", *drawn, "</svg>", ""])
