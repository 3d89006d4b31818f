"""An API that allows less than its callers think."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.support.crew import ROOT

HOST = "127.0.0.1"


@contextmanager
def api(per_second: float, burst: int, retry_after: int) -> Iterator[str]:
    """Its URL; a process of its own."""
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        limits = ["--per-second", str(per_second), "--burst", str(burst), "--retry-after", str(retry_after)]
        command = [sys.executable, "-m", "steindamm.demo.api", "--fd", str(fd), *limits]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[fd])
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(10)
