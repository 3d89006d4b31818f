"""Puts the saved figures into docs/performance.md, and draws its chart: no number there is typed by hand.

The page says where each table goes: between ``<!-- table NAME -->`` and ``<!-- end of table -->``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.derived import latency, sizing
from benchmarks.support.chart import Panel, chart
from benchmarks.support.tables import RESULTS, Table

DOCS = Path(__file__).parents[1] / "docs"
PAGE, CHART = DOCS / "performance.md", DOCS / "performance.svg"
PLACE = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
PANELS = {
    "local-sync": "one acquire, as a multiple of a bare lock; shorter is better",
    "local-async": "one acquire, as a multiple of a bare lock; shorter is better",
    "redis-rate-sync": "as a multiple of a bare EVALSHA; shorter is better",
    "redis-rate-async": "as a multiple of a bare EVALSHA; shorter is better",
    "redis-slot-sync": "as a multiple of a bare EVALSHA; shorter is better",
    "redis-slot-async": "as a multiple of a bare EVALSHA; shorter is better",
    "aggregate": "as a multiple of a bare EVALSHA's; longer is better",
    "shared-threads": "as a multiple of a bare EVALSHA's; longer is better",
}


def saved() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def tables(results: list[dict[str, Any]]) -> dict[str, Table]:
    return {table["name"]: Table(**table) for result in results for table in result["tables"]}


def measured_on(results: list[dict[str, Any]]) -> str:
    """On what, and with which versions."""
    packages: dict[str, set[str]] = {}
    for result in results:
        for package, version in result["packages"].items():
            packages.setdefault(package, set()).add(version)
    versions = ", ".join(f"{package} {' and '.join(sorted(known))}" for package, known in sorted(packages.items()))
    servers = " and ".join(sorted({result["server"] for result in results} - {"none"}))
    first = results[0]
    quick = " Some were quick runs." if any(result["quick"] for result in results) else ""
    load = max(result["load"] for result in results)
    machine = f"{first['cores']} cores with a load of up to {load}, Python {first['python']}, {servers} on them, too"
    return f"Measured on {machine}; {versions}.{quick}\n"


def filled(page: str, known: dict[str, Table], facts: str) -> str:
    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "measured-on":
            return f"{match[1]}{facts}{match[3]}"
        if name not in known:
            raise SystemExit(f"no saved figures for the table {name!r}: run its benchmark first")
        return f"{match[1]}\n*{known[name].title}*\n\n{known[name].markdown()}\n\n{match[3]}"

    return PLACE.sub(table, page)


def main() -> None:
    results = saved()
    known = tables(results)
    for derived in (sizing, latency):
        table = derived(known)
        known[table.name] = table
    PAGE.write_text(filled(PAGE.read_text(), known, measured_on(results)))
    CHART.write_text(chart([Panel(known[name], caption) for name, caption in PANELS.items()]))


if __name__ == "__main__":
    main()
