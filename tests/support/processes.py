"""Processes that other ones have started."""

from __future__ import annotations

from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Those that a process has started itself; none of one that has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def descendants(pid: int) -> list[int]:
    """Those, each before the ones that it has started."""
    return [each for child in children_of(pid) for each in (child, *descendants(child))]
