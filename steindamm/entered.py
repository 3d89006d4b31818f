"""Which permit a ``with`` block has to give back.

One limiter object may be entered by any number of threads and tasks at once, and more than once by each.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from steindamm.permits import SlotPermit


class _Entry(NamedTuple):
    limiter: object
    permit: SlotPermit
    outer: _Entry | None


_innermost: ContextVar[_Entry | None] = ContextVar("steindamm_entered", default=None)


def entered(limiter: object, permit: SlotPermit) -> SlotPermit:
    """The block of this thread or task that starts now holds the permit."""
    _innermost.set(_Entry(limiter, permit, _innermost.get()))
    return permit


def left(limiter: object) -> SlotPermit:
    """The permit of the block that ends now."""
    passed: list[_Entry] = []
    entry = _innermost.get()
    while entry is not None and entry.limiter is not limiter:
        passed.append(entry)
        entry = entry.outer
    if entry is None:
        raise RuntimeError("a semaphore's block must end in the thread or task in which it began")
    rest = entry.outer
    for skipped in reversed(passed):
        rest = skipped._replace(outer=rest)
    _innermost.set(rest)
    return entry.permit
