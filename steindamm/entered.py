"""Which permit a ``with`` block has to give back.

One limiter object may be entered by any number of threads and tasks at once, and more than once by each: the
blocks of each are kept apart. A block may also end elsewhere than it began (frameworks run the two halves of
a generator in different threads or tasks): such an end gives back whichever permit was given last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeAlias, TypeVar

from steindamm.permits import Permit

Held = TypeVar("Held", bound=Permit)
Block: TypeAlias = "tuple[Any, Block | None]"
"""The permit of a block, and the block around it."""


def this_task() -> int:
    """Which task this is, without holding it; 0 where no loop runs: the garbage collector ends what a loop has left."""
    try:
        return id(asyncio.current_task())
    except RuntimeError:
        return 0


class Blocks(Generic[Held]):
    """The blocks of one limiter that have begun and not ended.

    Parameters:
        who: Tells which thread, or task, this is.
    """

    __slots__ = ("_open", "_who")

    def __init__(self, who: Callable[[], Hashable]) -> None:
        self._who = who
        self._open: dict[Hashable, Block] = {}

    def begin(self, permit: Held) -> Held:
        """The block that starts now holds the permit."""
        who, blocks = self._who, self._open
        me = who()
        blocks[me] = permit, blocks.get(me)
        return permit

    def end(self) -> Held:
        """The permit of the block that ends now.

        No call comes between finding the block and taking it out: whoever is interrupted has done both, or neither.
        """
        who, blocks = self._who, self._open
        me = who()
        permit: Held
        try:
            permit, around = blocks[me]
        except KeyError:
            return self._end_elsewhere()
        if around is None:
            del blocks[me]
        else:
            blocks[me] = around
        return permit

    def _end_elsewhere(self) -> Held:
        try:
            who, block = self._open.popitem()
        except KeyError:
            raise RuntimeError("a limiter's block ended that had not begun") from None
        permit: Held = block[0]
        if block[1] is not None:
            self._open[who] = block[1]
        return permit
