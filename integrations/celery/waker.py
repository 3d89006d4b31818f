"""Calls from other threads into the thread of a worker's event loop."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

logger = logging.getLogger("steindamm.celery")

Call = Callable[[], object]
CHUNK = 4_096


class Waker:
    """Wakes the loop through a socket that it watches; a worker without a loop is called where the caller is."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def watch(self, hub: Any) -> None:
        """Let the loop call from now on."""
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.settimeout(0)
        hub.add_reader(self._ends[0], self._run_calls)

    def call(self, call: Call) -> None:
        """Make a call in the loop's thread, soon."""
        if self._ends is None:
            _run(call)
            return
        self._calls.append(call)
        with suppress(OSError):  # it is full: the loop has been woken before, and not looked yet
            self._ends[1].send(b"\0")

    def turn(self) -> None:
        """Have the loop turn once more before it waits: there may be something to do that it was not woken for."""
        self.call(_nothing)

    def _run_calls(self) -> None:
        assert self._ends is not None  # noqa: S101
        with suppress(OSError):
            self._ends[0].recv(CHUNK)
        while self._calls:
            _run(self._calls.popleft())


def _nothing() -> None:
    pass


def _run(call: Call) -> None:
    """An error that reached the loop would end the worker."""
    try:
        call()
    except Exception:
        logger.exception("a call into the worker's loop failed")
