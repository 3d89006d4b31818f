"""Which permit a ``with`` block has to give back.

One limiter object may be entered by any number of threads and tasks at once, and more than once by each: each
thread and task remembers its own blocks. A block may also end elsewhere than it began (frameworks run the two
halves of a generator in different threads or tasks): such an end gives back whichever permit was given last.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TypeAlias

from steindamm.permits import SlotPermit

Entry: TypeAlias = "tuple[Blocks, SlotPermit, Entry | None]"
"""The blocks that it is one of, its permit, and the block around it."""

_innermost: ContextVar[Entry | None] = ContextVar("steindamm_entered", default=None)


class Blocks:
    """The blocks of one limiter that have begun and not ended."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[SlotPermit, None] = {}

    def begin(self, permit: SlotPermit) -> SlotPermit:
        """The block of this thread or task that starts now holds the permit."""
        outer = _innermost.get()
        while outer is not None and outer[1] not in outer[0]._open:
            outer = outer[2]
        self._open[permit] = None
        _innermost.set((self, permit, outer))
        return permit

    def end(self) -> SlotPermit:
        """The permit of the block that ends now."""
        entry = _innermost.get()
        if entry is not None and entry[0] is self and self._close(entry[1]):
            _innermost.set(entry[2])
            return entry[1]
        while entry is not None:
            if entry[0] is self and self._close(entry[1]):
                return entry[1]
            entry = entry[2]
        try:
            return self._open.popitem()[0]
        except KeyError:
            raise RuntimeError("a semaphore's block ended that had not begun") from None

    def _close(self, permit: SlotPermit) -> bool:
        return self._open.pop(permit, self) is None
