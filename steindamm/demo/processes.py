"""The processes that the demo starts, and how all of them end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from steindamm.demo.errors import DemoError
from steindamm.demo.interruption import LOOK, Interruption

END_SECONDS = 5.0
INTERRUPTED_END_SECONDS = 1.0
SWEEP_SECONDS = 2.0
LOG_LINES = 15
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Child:
    """One started process, the leader of a session and a process group of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def kind(self) -> str:
        """What its name begins with: ``worker`` for ``worker 2``."""
        return self.name.split()[0]

    @property
    def ended(self) -> bool:
        """Whether it is gone (those that it started may live on: `Processes.stop` ends them too)."""
        return self.process.poll() is not None

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"

    def signal_group(self, signum: int) -> bool:
        """Send a signal to all of its group; whether there was anyone."""
        try:
            os.killpg(self.process.pid, signum)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def group_gone(self) -> bool:
        """Whether none of its group is left, once it has ended itself; those that were adopted are buried."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self.process.pid, os.WNOHANG)[0]:
                pass
        return not self.signal_group(0)


class Processes:
    """Starts processes, and ends them, with all that they started, when the block is left.

    Parameters:
        folder: Where each one's output is kept, and their temporary files.
        interruption: Tells whether somebody insists on a fast end.
    """

    def __init__(self, folder: Path, interruption: Interruption) -> None:
        self._folder = folder
        self._interruption = interruption
        self._children: list[Child] = []
        self._die_with_parent = _die_with_parent()
        _adopt_orphans()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        pass_fds: Iterable[int] = (),
    ) -> Child:
        """Start a process that gets those bytes on its standard input; its output goes to a file."""
        log = self._folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, "TMPDIR": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                preexec_fn=self._die_with_parent,  # noqa: PLW1509 - the demo has no threads
            )
        child = Child(name, process, log)
        self._children.append(child)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(stdin)
        return child

    def check(self) -> None:
        """Raise `DemoError` with its last words if a process has ended that should be there."""
        for child in self._children:
            if child.ended:
                raise DemoError(
                    f"{child.name} ended with code {child.process.returncode}; its last lines:\n{child.last_words()}"
                )

    def end(self, children: Sequence[Child]) -> None:
        """End some of them: ask, wait a bounded time, then make sure."""
        for child in children:
            child.process.terminate()
        patience = END_SECONDS if self._interruption.signum is None else INTERRUPTED_END_SECONDS
        self._wait(lambda: all(child.ended for child in children), patience)
        self._sweep(children)
        self._children = [child for child in self._children if child not in children]

    def stop(self) -> None:
        """End all: the workers first, while those that they talk to are still there."""
        while self._children:
            last = self._children[-1]
            self.end([child for child in self._children if child.kind == last.kind])

    def _sweep(self, children: Sequence[Child]) -> None:
        for child in children:
            child.signal_group(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(SWEEP_SECONDS)
        self._wait(lambda: all(child.group_gone() for child in children), SWEEP_SECONDS)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end and not self._interruption.insisted:
            time.sleep(LOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _adopt_orphans() -> None:
    """Make what a killed child has started a child of this process, which can then wait for its end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> Callable[[], None] | None:
    """What makes a new process end with this one even if this is killed; None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return die_with_parent
