"""Ctrl-C and its like, looked at between two steps, so that no step is left half done."""

from __future__ import annotations

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK = 0.02


class Interrupted(BaseException):
    """Somebody wants the demo to end; like KeyboardInterrupt it is no error for anything to handle on the way."""

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum
        super().__init__(signal.Signals(signum).name)


class Interruption:
    """Remembers the signals that came; nothing is interrupted but at `check` and `sleep`.

    Example:
        >>> interruption = Interruption()
        >>> interruption.check()
        >>> interruption.signum = signal.SIGINT
        >>> interruption.check()
        Traceback (most recent call last):
        steindamm.demo.interruption.Interrupted: SIGINT
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.insisted = False
        """Whether a second signal came: who sends two is not willing to wait."""

    def listen(self) -> None:
        """Take the signals for the rest of this process's life: a Ctrl-C while it ends needs no answer."""
        for signum in SIGNALS:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.insisted = self.signum is not None
        self.signum = signum

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def sleep(self, seconds: float) -> None:
        """Sleep, and raise `Interrupted` soon after a signal."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK))
            self.check()
