"""This process's clock.

Tests that freeze time (freezegun) put a clock that stands still in the place of `time.monotonic`, wherever a module has
it under a name; sleeps and servers go on. Whoever sleeps until a moment on such a clock never wakes, and leases that
are renewed by it run out. So here it is within another function, where it is not found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

monotonic: Callable[[], float] = partial(time.monotonic)
"""Seconds, which only ever grow."""
