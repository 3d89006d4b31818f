"""Signals to processes that a test has started."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any


def send(process: subprocess.Popen[Any], number: int) -> None:
    """Send a signal; one that is to stop has stopped, all of its threads, when this returns."""
    process.send_signal(number)
    if number == signal.SIGSTOP:
        os.waitpid(process.pid, os.WUNTRACED)
