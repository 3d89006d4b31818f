"""Wakes one thread from any other."""

from __future__ import annotations

from contextlib import suppress
from threading import Lock


class Bell:
    """Rung for one thread, which waits for it; rung again before it has heard, it is heard once.

    One lock of the interpreter does it: the thread may be interrupted anywhere (by a signal, a time limit), and who
    rings is never held up. An `Event` or a `Condition` may stay locked by one who was interrupted inside of it.

    Example:
        >>> from steindamm.bell import Bell
        >>> bell = Bell()
        >>> bell.ring()
        >>> bell.wait(1.0), bell.wait(0.0)
        (True, False)
    """

    __slots__ = ("_silence",)

    def __init__(self) -> None:
        self._silence = Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Wake the one who waits, or who will."""
        with suppress(RuntimeError):
            self._silence.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it rings within so many seconds; None waits without end."""
        return self._silence.acquire(timeout=-1 if seconds is None else seconds)

    def clear(self) -> None:
        """Forget that it rang."""
        self._silence.acquire(blocking=False)
