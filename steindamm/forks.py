"""What a forked child begins anew: it has none of its parent's threads, and so nobody else's locks or lines."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class BegunAnew(Protocol):
    """Something with threads or locks."""

    def begin(self) -> None:
        """Be as if new."""


_all: WeakSet[BegunAnew] = WeakSet()


def begin_anew_in_child(thing: BegunAnew) -> None:
    """Call the thing's `begin` in each forked child, for as long as the thing lives."""
    _all.add(thing)


def _begin_all() -> None:
    for thing in tuple(_all):
        thing.begin()


os.register_at_fork(after_in_child=_begin_all)
