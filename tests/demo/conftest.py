"""Demos run as a user runs them, in a process of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MARKER = "STEINDAMM_TEST_MARKER"
PATIENCE = 60.0


class Demo:
    """A running demo; all that it starts carries its mark in the environment, or works in its folder.

    (Valkey writes its title over the environment that it was given.)
    Its output goes through a pipe, as in CI, so that it says line by line how far it has come.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.mark = f"{MARKER}={uuid.uuid4().hex}".encode()
        name, value = self.mark.decode().split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "steindamm.cli", "demo", *options],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder), name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self.output = ""
        self.errors = ""

    def read_until(self, text: str) -> None:
        """Read its output up to the line that holds a text."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"no line with {text!r} in:\n{self.output}")

    def wait(self) -> int:
        """Its exit code."""
        output, self.errors = self.process.communicate(timeout=PATIENCE)
        self.output += output
        return self.process.returncode

    def processes(self) -> list[str]:
        """The living processes that it has started, and itself."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                marked = self.mark in (process / "environ").read_bytes().split(b"\0")
                if marked or str(self.folder) in str((process / "cwd").readlink()):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos; those that a failed test leaves running end with it."""
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.communicate(timeout=PATIENCE)
